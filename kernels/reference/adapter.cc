// Adapter images of the reference backend: A then B of each module as single fp32 elements ("rows"
// of four bytes), one after the other, so that nothing ever straddles a page and element i of a
// matrix is element i of its tile rows.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/adapter_layout.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/reference/storage.h"
#include "memory/base/check.h"

namespace lorad::kernels::reference {
namespace {

TileRows Place(uint64_t& end, uint32_t elements) {
  const TileRows tile{.offset = end, .row_bytes = sizeof(float), .rows = elements};
  end += uint64_t{elements} * sizeof(float);
  return tile;
}

// Where row `row` of `tile` lies.
std::byte* TileRow(const TileRows& tile, uint32_t row, const PageSlab& slab,
                   std::span<const uint32_t> pages) {
  const uint64_t offset = tile.offset + uint64_t{row} * tile.row_bytes;
  return slab.Page(pages[offset / slab.page_bytes]) + offset % slab.page_bytes;
}

void Write(const HostMatrix& matrix, const TileRows& tile, const PageSlab& slab,
           std::span<const uint32_t> pages) {
  LORAD_CHECK(matrix.rows * matrix.cols == tile.rows);
  for (uint32_t i = 0; i < tile.rows; ++i) {
    const float value = Element(matrix, i);
    std::memcpy(TileRow(tile, i, slab, pages), &value, sizeof(value));
  }
}

std::vector<float> Read(const TileRows& tile, const PageSlab& slab,
                        std::span<const uint32_t> pages) {
  std::vector<float> values(tile.rows);
  for (uint32_t i = 0; i < tile.rows; ++i) {
    std::memcpy(&values[i], TileRow(tile, i, slab, pages), sizeof(float));
  }
  return values;
}

}  // namespace

AdapterLayout ReferenceBackend::PlanAdapter(std::span<const LowRankFactors> factors, uint32_t sites,
                                            size_t page_bytes) const {
  AdapterLayout layout = ListModules(factors, sites);
  uint64_t end = 0;
  for (AdapterModule& module : layout.modules) {
    module.a = Place(end, module.rank * module.d_in);
    module.b = Place(end, module.out_cols * module.rank);
  }
  layout.image_bytes = end;
  layout.pages = static_cast<uint32_t>((end + page_bytes - 1) / page_bytes);
  return layout;
}

void ReferenceBackend::PackAdapter(const AdapterLayout& layout,
                                   std::span<const LowRankFactors> factors, const PageSlab& slab,
                                   std::span<const uint32_t> pages) const {
  LORAD_CHECK(pages.size() == layout.pages);
  for (const LowRankFactors& f : factors) {
    const AdapterModule& module = ModuleOf(layout, f);
    Write(f.a, module.a, slab, pages);
    Write(f.b, module.b, slab, pages);
  }
}

void AddLowRank(const AdapterModule& module, const AdapterSegment& segment, const PageSlab& slab,
                const Tensor& x, Tensor& y) {
  const std::vector<float> a = Read(module.a, slab, segment.pages);  // [rank, d_in]
  const std::vector<float> b = Read(module.b, slab, segment.pages);  // [out_cols, rank]
  const double factor = double{segment.weight} * double{module.scale};
  for (int row = segment.first_row; row < segment.end_row; ++row) {
    const auto in = Of(x).Row(row);
    const auto out = Of(y).Row(row);
    std::vector<float> shrunk(module.rank);
    for (size_t r = 0; r < module.rank; ++r) {
      shrunk[r] = static_cast<float>(Dot(std::span(a).subspan(r * module.d_in, module.d_in), in));
    }
    for (size_t c = 0; c < module.out_cols; ++c) {
      const double expanded = Dot(std::span(b).subspan(c * module.rank, module.rank), shrunk);
      out[module.out_begin + c] += static_cast<float>(factor * expanded);
    }
  }
}

}  // namespace lorad::kernels::reference
