// Where a key or value vector lies in a page of the reference backend:
// [layer][K|V][kv_head][token][head_dim], fp32.
#pragma once

#include <span>

#include "kernels/types.h"

namespace lorad::kernels::reference {

struct KvPages {
  enum Which { kKey = 0, kValue = 1 };

  PageSlab slab;
  KvGeometry geometry;

  // The vector of `position` in the sequence that owns `pages`, [head_dim].
  std::span<float> At(std::span<const uint32_t> pages, int position, int layer, Which which,
                      int kv_head) const {
    const auto& g = geometry;
    std::byte* page = slab.Page(pages[size_t(position / g.page_tokens)]);
    const size_t token = size_t(position % g.page_tokens);
    const size_t vector = ((size_t(layer) * 2 + which) * size_t(g.kv_heads) + size_t(kv_head)) *
                              size_t(g.page_tokens) +
                          token;
    return {reinterpret_cast<float*>(page) + vector * size_t(g.head_dim), size_t(g.head_dim)};
  }
};

}  // namespace lorad::kernels::reference
