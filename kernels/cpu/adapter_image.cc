#include "kernels/cpu/adapter_image.h"

#include <algorithm>
#include <cstring>

#include "kernels/adapter_layout.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/kernel_table.h"
#include "memory/base/check.h"

namespace lorad::kernels::cpu {
namespace {

constexpr uint32_t kLineBytes = 64;
constexpr int kLineElements = 32;
static_assert(kPageGranule % kLineBytes == 0);

uint32_t DivideUp(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

TileRows Place(uint64_t& end, uint32_t lines) {
  const TileRows tile{.offset = end, .row_bytes = kLineBytes, .rows = lines};
  end += uint64_t{lines} * kLineBytes;
  return tile;
}

// Writes consecutive lines of an image.
class LineWriter {
 public:
  LineWriter(const TileRows& tile, const PageSlab& slab, std::span<const uint32_t> pages)
      : offset_(tile.offset), slab_(slab), pages_(pages) {}

  void Write(const uint16_t (&line)[kLineElements]) {
    std::byte* page = slab_.Page(pages_[offset_ / slab_.page_bytes]);
    std::memcpy(page + offset_ % slab_.page_bytes, line, sizeof(line));
    offset_ += kLineBytes;
  }

 private:
  uint64_t offset_;
  const PageSlab& slab_;
  std::span<const uint32_t> pages_;
};

template <DType kType>
void PackA(const HostMatrix& a, TileOrder order, LineWriter writer) {
  for (int64_t group = 0; group < a.rows; group += kRankGroup) {
    const int64_t ranks = std::min<int64_t>(a.rows - group, kRankGroup);
    for (int64_t k = 0; k < a.cols; k += kBlockK) {
      uint16_t tile[kRankGroup][kLineElements] = {};
      const int64_t count = std::min<int64_t>(kBlockK, a.cols - k);
      for (int64_t rank = 0; rank < ranks; ++rank) {
        for (int64_t i = 0; i < count; ++i) {
          const int64_t at = order == TileOrder::kRankMajor ? rank * kLineElements + i
                                                            : (i / 2 * ranks + rank) * 2 + i % 2;
          tile[at / kLineElements][at % kLineElements] =
              Bf16At<kType>(a.data, (group + rank) * a.cols + k + i);
        }
      }
      for (int64_t line = 0; line < ranks; ++line) writer.Write(tile[line]);
    }
  }
}

template <DType kType>
void PackB(const HostMatrix& b, LineWriter writer) {
  for (int64_t panel = 0; panel < b.rows; panel += kPanel) {
    const int64_t lanes = std::min<int64_t>(kPanel, b.rows - panel);
    for (int64_t rank = 0; rank < b.cols; rank += 2) {
      uint16_t line[kLineElements] = {};
      for (int64_t i = 0; i < 2 * lanes; ++i) {
        if (rank + i % 2 == b.cols) continue;
        line[i] = Bf16At<kType>(b.data, (panel + i / 2) * b.cols + rank + i % 2);
      }
      writer.Write(line);
    }
  }
}

}  // namespace

AdapterLayout PlanAdapterImage(std::span<const LowRankFactors> factors, uint32_t sites,
                               size_t page_bytes) {
  AdapterLayout layout = ListModules(factors, sites);

  uint64_t end = 0;
  for (uint32_t s = 0; s < sites; ++s) {
    const auto modules =
        std::span(layout.modules)
            .subspan(layout.site_begin[s], layout.site_begin[s + 1] - layout.site_begin[s]);
    for (AdapterModule& m : modules) m.a = Place(end, m.rank * DivideUp(m.d_in, kBlockK));
    for (AdapterModule& m : modules) {
      m.b = Place(end, DivideUp(m.out_cols, kPanel) * DivideUp(m.rank, 2));
    }
  }
  layout.image_bytes = end;
  layout.pages = static_cast<uint32_t>((end + page_bytes - 1) / page_bytes);
  return layout;
}

void PackAdapterImage(const AdapterLayout& layout, std::span<const LowRankFactors> factors,
                      const PageSlab& slab, std::span<const uint32_t> pages, TileOrder order) {
  LORAD_CHECK(pages.size() >= layout.pages);
  for (const LowRankFactors& f : factors) {
    const AdapterModule& module = ModuleOf(layout, f);
    WithType(f.a.dtype, [&]<DType kType> { PackA<kType>(f.a, order, {module.a, slab, pages}); });
    WithType(f.b.dtype, [&]<DType kType> { PackB<kType>(f.b, {module.b, slab, pages}); });
  }
}

}  // namespace lorad::kernels::cpu
