// Adapter images of the CPU backend: how the factors of an adapter lie in pages for the kernels of
// adapter_inl.h.
//
// An image is a sequence of 64-byte lines, so nothing straddles a page and no byte is lost to page
// ends. Site by site in the order of execution: the A of each module, then the B of each module.
// - A, in groups of up to 16 ranks: [d_in/32] tiles of one line a rank, in the order that the
// kernels want; ranks are exact,
//   inputs padded with zeros to 32;
// - B: [outputs/16][rank/2] lines of [16 outputs][2 ranks], padded with zeros to 16 outputs and an
// even rank.
//
// Pure functions; any thread.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/kernel_table.h"
#include "kernels/types.h"

namespace lorad::kernels::cpu {

AdapterLayout PlanAdapterImage(std::span<const LowRankFactors> factors, uint32_t sites,
                               size_t page_bytes);
void PackAdapterImage(const AdapterLayout& layout, std::span<const LowRankFactors> factors,
                      const PageSlab& slab, std::span<const uint32_t> pages, TileOrder order);

}  // namespace lorad::kernels::cpu
