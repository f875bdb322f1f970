// AdapterImage: where the parts of one adapter lie in its pages. A tensor-parallel model has one
// layout a rank: each rank keeps its share of the adapter in pages of its own slab, under the same
// numbers as the others. A value; immutable once an executor sees it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/types.h"

namespace lorad {

struct AdapterImage {
  std::vector<kernels::AdapterLayout> layouts;  // by rank, at least one

  // Of the rank that needs most; the pages are taken on every rank.
  uint32_t pages() const {
    uint32_t most = 0;
    for (const auto& layout : layouts) most = std::max(most, layout.pages);
    return most;
  }
  uint64_t bytes() const {
    uint64_t most = 0;
    for (const auto& layout : layouts) most = std::max(most, layout.image_bytes);
    return most;
  }
};

}  // namespace lorad
