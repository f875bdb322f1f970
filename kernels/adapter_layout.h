// What the images of all backends have in common: which modules an adapter has at which site.
// Pure; any thread.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/types.h"

namespace lorad::kernels {

// A layout with its modules and site_begin; where their tiles lie is the backend's to fill in.
// REQUIRES: of every factor, site < sites, 1 <= rank, equal ranks in the pair.
AdapterLayout ListModules(std::span<const LowRankFactors> factors, uint32_t sites);

// The module of `layout` that these factors are.  REQUIRES: the layout was made from them.
const AdapterModule& ModuleOf(const AdapterLayout& layout, const LowRankFactors& factors);

}  // namespace lorad::kernels
