// Where things lie in an adapter image, and how its parts are cut into work: index maths that the
// packer, the work lists and the kernels share. Pure; tested exhaustively on the host.
//
// An image is a row of granules of 512 bytes:
//   [directory] [site 0: A tiles, B tiles] [site 1: A tiles, B tiles] ...
// - Directory: ModuleRecord [sites][site_modules], site_modules the most modules of any site.
// - A tiles: the A matrices of all modules of a site side by side, ranks of each module padded to
//   8: with `site_tiles` the sum of the modules' rank tiles, tile [k][r] (64 inputs, 8 ranks) is
//   number k * site_tiles + r. The site's modules read the same x, so it is read once for all.
// - B tiles, module by module: tile [group][r] (32 outputs, 8 ranks) is number
//   group * rank_tiles + r.
// Every tile is aligned to its own size and a page is a whole number of tiles, so no tile straddles
// a page: an image may lie in any pages.
//
// Inside a tile each lane of a warp owns 16 bytes, those that it needs as an operand of
// Mma16816 (gpu.h), so that a tile (or half of an A tile) is one load, 512 consecutive bytes a
// warp:
// - A: two halves of 32 inputs; lane 4g + t owns rank g, inputs 8t .. 8t+7 of its half. The inputs
//   of one product are thus {8t..8t+3} of each t, and x is loaded in the same way.
// - B: lane 4n + t owns ranks 2t, 2t+1 of outputs 8 (n/2) + 2i + n%2, i = 0..3. The i-th product of
//   a group then gives lane 4g + t columns 8t + 2i and 8t + 2i + 1 of row g: over the four products
//   a lane holds eight neighbouring columns, one 16-byte access in bf16.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/host_device.h"

namespace lorad::kernels::cuda {

inline constexpr uint32_t kGranule = 512;  // bytes
inline constexpr uint32_t kTileRanks = 8;
inline constexpr uint32_t kTileInputs = 64;
inline constexpr uint32_t kTileOutputs = 32;
inline constexpr uint32_t kATileGranules = 2;
inline constexpr uint32_t kBTileGranules = 1;

// How sums over inputs are cut, whatever runs them: products are chained over a quarter, the
// quarters of a span are added in order, and so are the spans.
inline constexpr uint32_t kQuarterTiles = 4;               // 256 inputs
inline constexpr uint32_t kSpanTiles = 4 * kQuarterTiles;  // 1024 inputs
inline constexpr uint32_t kSpanInputs = kSpanTiles * kTileInputs;

template <typename T>
LORAD_HOST_DEVICE constexpr T DivideUp(T a, T b) {
  return (a + b - 1) / b;
}
LORAD_HOST_DEVICE constexpr uint32_t RankTiles(uint32_t rank) { return DivideUp(rank, kTileRanks); }

// Position in 16-bit elements within an A tile.  REQUIRES: rank < 8, input < 64.
LORAD_HOST_DEVICE constexpr uint32_t AElement(uint32_t rank, uint32_t input) {
  return input / 32 * 256 + (rank * 4 + input % 32 / 8) * 8 + input % 8;
}
// Position in 16-bit elements within a B tile.  REQUIRES: output < 32, rank < 8.
LORAD_HOST_DEVICE constexpr uint32_t BElement(uint32_t output, uint32_t rank) {
  const uint32_t lane = (output / 8 * 2 + output % 2) * 4 + rank / 2;
  return lane * 8 + output % 8 / 2 * 2 + rank % 2;
}

// Numbers of granules from the start of the image.
LORAD_HOST_DEVICE constexpr uint32_t ATile(uint32_t a, uint32_t site_tiles, uint32_t k,
                                           uint32_t rank_tile) {
  return a + (k * site_tiles + rank_tile) * kATileGranules;
}
LORAD_HOST_DEVICE constexpr uint32_t BTile(uint32_t b, uint32_t rank_tiles, uint32_t group,
                                           uint32_t rank_tile) {
  return b + (group * rank_tiles + rank_tile) * kBTileGranules;
}

// What the directory says of a module: what differs between sites of equal shapes, and enough to
// check the rest.
struct alignas(16) ModuleRecord {
  uint32_t a = 0;  // granule of the site's A tiles
  uint32_t b = 0;  // granule of the module's B tiles
  uint32_t out_begin = 0;
  uint32_t out_cols = 0;
  float scale = 0;
  uint32_t rank = 0;
  uint32_t first_tile = 0;  // of the module among the site's rank tiles
  uint32_t site_tiles = 0;
};
static_assert(sizeof(ModuleRecord) == 32 && kGranule % sizeof(ModuleRecord) == 0);

// Byte of a record from the start of the image.
LORAD_HOST_DEVICE constexpr uint64_t RecordOffset(uint32_t site, uint32_t site_modules,
                                                  uint32_t module) {
  return (uint64_t{site} * site_modules + module) * sizeof(ModuleRecord);
}

// Division of a granule's number by the granules of a page, without dividing: exact for numbers
// below 2^31 (T. Granlund, P. Montgomery, "Division by Invariant Integers using Multiplication",
// PLDI 1994, theorem 4.2 with one bit to spare).
inline constexpr uint32_t kMaxGranules = uint32_t{1} << 31;  // 1 TiB

struct PageSplit {
  uint32_t granules = 1;  // of a page
  uint32_t multiplier = 0;
  uint32_t shift = 31;

  LORAD_HOST_DEVICE constexpr uint32_t Page(uint32_t granule) const {
    return static_cast<uint32_t>((uint64_t{granule} * multiplier) >> shift);
  }
};

// REQUIRES: page_bytes is a multiple of kGranule, below 1 TiB.
constexpr PageSplit SplitPages(size_t page_bytes) {
  const auto granules = static_cast<uint32_t>(page_bytes / kGranule);
  uint32_t log = 0;
  while ((uint64_t{1} << log) < granules) ++log;
  const uint64_t multiplier = (uint64_t{1} << (31 + log)) / granules + 1;
  return {granules, static_cast<uint32_t>(multiplier), 31 + log};
}

}  // namespace lorad::kernels::cuda
