// The activation of a feed-forward layer, for every kernel that has one: the same bits from each.
#pragma once

#include <cmath>

#include "kernels/cuda/gpu.h"

namespace lorad::kernels::cuda {

// silu(gate) * up.
LORAD_DEVICE float SwiGluOf(float gate, float up) { return gate / (1.0f + expf(-gate)) * up; }

}  // namespace lorad::kernels::cuda
