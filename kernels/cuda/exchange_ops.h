// Exchange ops: what a rank does with the parts that others have sent it.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/views.h"

namespace lorad::kernels::cuda {

// sum[i] = parts[0][i] + parts[1][i] + ..., in this order; parts fp32 [ranks, count].
// REQUIRES: count is a multiple of 4, all is 16-byte aligned.
void LaunchAddParts(Launcher& launch, const float* parts, int ranks, size_t count, float* sum);
// Row i of `whole` becomes row i of all parts side by side, as far as `whole` has columns.
// parts: [ranks, rows, stride] fp32, of which `cols` are used.  REQUIRES: whole is fp32.
void LaunchJoinParts(Launcher& launch, const float* parts, int rows, int cols, int stride,
                     const TensorView& whole);

std::vector<KernelRef> ExchangeKernels();

}  // namespace lorad::kernels::cuda
