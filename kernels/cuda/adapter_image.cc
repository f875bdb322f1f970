// Adapter images of the CUDA backend: laying out and packing what adapter_index.h describes.
#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <map>
#include <vector>

#include "kernels/adapter_layout.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cuda/adapter_index.h"
#include "kernels/cuda/adapter_ops.h"
#include "memory/base/check.h"

namespace lorad::kernels::cuda {
namespace {

constexpr uint64_t kATileBytes = uint64_t{kATileGranules} * kGranule;
constexpr uint64_t kBTileBytes = uint64_t{kBTileGranules} * kGranule;

// Shapes come from files. Sums that no memory could hold stay at the greatest number, so that
// whoever asks for the pages refuses, instead of wrapping around to few.
uint64_t Add(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? std::numeric_limits<uint64_t>::max() : sum;
}
uint64_t Multiply(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? std::numeric_limits<uint64_t>::max() : product;
}
uint32_t Narrow(uint64_t value) {
  return static_cast<uint32_t>(std::min<uint64_t>(value, std::numeric_limits<uint32_t>::max()));
}
uint64_t Align(uint64_t value, uint64_t alignment) {
  return value > std::numeric_limits<uint64_t>::max() - alignment
             ? value
             : DivideUp(value, alignment) * alignment;
}

// Places the tiles of one site from byte `begin`; gives the end.
uint64_t PlaceSite(std::span<AdapterModule> modules, uint64_t begin) {
  uint64_t site_tiles = 0;
  uint64_t inputs = 0;
  for (const AdapterModule& m : modules) {
    site_tiles += RankTiles(m.rank);
    inputs = std::max<uint64_t>(inputs, m.d_in);
  }
  const uint64_t k_tiles = DivideUp<uint64_t>(inputs, kTileInputs);
  begin = Align(begin, kATileBytes);
  uint64_t end = Add(begin, Multiply(Multiply(k_tiles, site_tiles), kATileBytes));
  uint64_t first_tile = 0;
  for (AdapterModule& m : modules) {
    const uint64_t rank_tiles = RankTiles(m.rank);
    m.a = {.offset = Add(begin, Multiply(first_tile, kATileBytes)),
           .row_bytes = uint32_t{kATileBytes},
           .rows = Narrow(Multiply(k_tiles, rank_tiles))};
    first_tile += rank_tiles;
    const uint64_t groups = DivideUp<uint64_t>(m.out_cols, kTileOutputs);
    m.b = {.offset = end,
           .row_bytes = uint32_t{kBTileBytes},
           .rows = Narrow(Multiply(groups, rank_tiles))};
    end = Add(end, Multiply(Multiply(groups, rank_tiles), kBTileBytes));
  }
  return end;
}

// For each site the first one with the same modules, but for their scales.
std::vector<uint32_t> SiteShapes(const AdapterLayout& layout, uint32_t sites) {
  using Shape = std::vector<std::array<uint32_t, 4>>;
  std::map<Shape, uint32_t> known;
  std::vector<uint32_t> shapes;
  for (uint32_t site = 0; site < sites; ++site) {
    Shape shape;
    for (const AdapterModule& m : layout.At(site)) {
      shape.push_back({m.rank, m.d_in, m.out_begin, m.out_cols});
    }
    shapes.push_back(known.try_emplace(shape, site).first->second);
  }
  return shapes;
}

template <DType kType>
void PackA(const HostMatrix& a, uint32_t site_tiles, std::byte* tiles) {
  constexpr int64_t kRun = 8;  // inputs of one lane, neighbours in the file and in the tile
  for (int64_t rank = 0; rank < a.rows; ++rank) {
    for (int64_t input = 0; input < a.cols; input += kRun) {
      uint16_t run[kRun];
      const int64_t count = std::min(kRun, a.cols - input);
      for (int64_t i = 0; i < count; ++i) {
        run[i] = cpu::Bf16At<kType>(a.data, rank * a.cols + input + i);
      }
      const uint64_t tile =
          uint64_t(input) / kTileInputs * site_tiles + uint64_t(rank) / kTileRanks;
      const uint32_t element = AElement(uint32_t(rank) % kTileRanks, uint32_t(input) % kTileInputs);
      std::memcpy(tiles + tile * kATileBytes + element * sizeof(uint16_t), run,
                  size_t(count) * sizeof(uint16_t));
    }
  }
}

template <DType kType>
void PackB(const HostMatrix& b, std::byte* tiles) {
  const uint64_t rank_tiles = RankTiles(uint32_t(b.cols));
  for (int64_t output = 0; output < b.rows; ++output) {
    const uint64_t group = uint64_t(output) / kTileOutputs;
    for (int64_t rank = 0; rank < b.cols; ++rank) {
      const uint16_t value = cpu::Bf16At<kType>(b.data, output * b.cols + rank);
      const uint64_t tile = group * rank_tiles + uint64_t(rank) / kTileRanks;
      const uint32_t element =
          BElement(uint32_t(output) % kTileOutputs, uint32_t(rank) % kTileRanks);
      std::memcpy(tiles + tile * kBTileBytes + element * sizeof(uint16_t), &value, sizeof(value));
    }
  }
}

}  // namespace

AdapterLayout PlanAdapterImage(std::span<const LowRankFactors> factors, uint32_t sites,
                               size_t page_bytes) {
  LORAD_CHECK(page_bytes % kPageGranule == 0 && page_bytes > 0);
  for (const LowRankFactors& f : factors) {
    LORAD_CHECK(f.a.cols >= 1 && f.b.rows >= 1);
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
    LORAD_CHECK(f.a.rows <= kMost && f.a.cols <= kMost && f.b.rows <= kMost);
  }
  AdapterLayout layout = ListModules(factors, sites);
  for (uint32_t s = 0; s < sites; ++s) {
    layout.site_modules =
        std::max(layout.site_modules, layout.site_begin[s + 1] - layout.site_begin[s]);
  }
  layout.site_shape = SiteShapes(layout, sites);

  uint64_t end = Align(RecordOffset(sites, layout.site_modules, 0), kGranule);
  for (uint32_t s = 0; s < sites; ++s) {
    const uint32_t first = layout.site_begin[s];
    if (first == layout.site_begin[s + 1]) continue;
    end =
        PlaceSite(std::span(layout.modules).subspan(first, layout.site_begin[s + 1] - first), end);
  }
  layout.image_bytes = end;
  layout.pages = Narrow(end / page_bytes + (end % page_bytes != 0 ? 1 : 0));
  return layout;
}

void PackAdapterImage(const AdapterLayout& layout, std::span<const LowRankFactors> factors,
                      size_t page_bytes, std::span<std::byte> image) {
  LORAD_CHECK(image.size() == size_t{layout.pages} * page_bytes &&
              image.size() >= layout.image_bytes);
  LORAD_CHECK(layout.image_bytes / kGranule < kMaxGranules);
  std::ranges::fill(image, std::byte{0});
  for (const LowRankFactors& f : factors) {
    const auto modules = layout.At(f.site);
    const AdapterModule& module = ModuleOf(layout, f);
    ModuleRecord record{.a = static_cast<uint32_t>(modules.front().a.offset / kGranule),
                        .b = static_cast<uint32_t>(module.b.offset / kGranule),
                        .out_begin = module.out_begin,
                        .out_cols = module.out_cols,
                        .scale = module.scale,
                        .rank = module.rank};
    for (const AdapterModule& m : modules) {
      if (m.out_begin < module.out_begin) record.first_tile += RankTiles(m.rank);
      record.site_tiles += RankTiles(m.rank);
    }
    const auto ordinal = static_cast<uint32_t>(&module - modules.data());
    std::memcpy(image.data() + RecordOffset(f.site, layout.site_modules, ordinal), &record,
                sizeof(record));
    cpu::WithType(f.a.dtype, [&]<DType kType> {
      PackA<kType>(f.a, record.site_tiles, image.data() + module.a.offset);
    });
    cpu::WithType(f.b.dtype,
                  [&]<DType kType> { PackB<kType>(f.b, image.data() + module.b.offset); });
  }
}

}  // namespace lorad::kernels::cuda
