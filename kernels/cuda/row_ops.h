// Row ops: what is done to each row of activations by itself, and copies. Tensors may be bf16 or
// fp32 on either side; the padding of an output's rows stays zero.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/views.h"

namespace lorad::kernels::cuda {

// out[i] = row ids[i] of the table (any format, dequantised); an id of -1 - k is sampled[k]. An id
// of table.rows or more gives zeros, so the rows that fill up a bucket may hold any id >= 0.
void LaunchEmbed(Launcher& launch, int rows, const int32_t* ids, const int32_t* sampled,
                 const WeightsView& table, const TensorView& out);
// fp32 sums in a fixed order.
void LaunchRmsNorm(Launcher& launch, int rows, const TensorView& x, const float* weight, float eps,
                   const TensorView& y);
// angles fp32 [rows, 2 * frequencies] = [cos | sin] of fp32(position) * inv_freq, exact to an ulp
// or two at any position (range reduction in double).
void LaunchRopeAngles(Launcher& launch, int rows, const int32_t* positions, const float* inv_freq,
                      int frequencies, const TensorView& angles);
// out = silu(gate) * up; gate_up [rows, 2 * out.cols].
void LaunchSwiGlu(Launcher& launch, int rows, const TensorView& gate_up, const TensorView& out);
// out[i] = x[indices[i]], equal formats and widths. Every index, also of rows that fill up a
// bucket, is a row of x.
void LaunchGatherRows(Launcher& launch, int rows, const int32_t* indices, const TensorView& x,
                      const TensorView& out);
// fp32 copy of one row.
void LaunchCopyRow(Launcher& launch, const TensorView& x, int row, float* out);
// Page copies.items[i].to becomes a copy of .from.
void LaunchCopyPages(Launcher& launch, const DeviceFacts& device, std::byte* slab,
                     size_t page_bytes, ListView<PageCopy> copies, int capacity);

std::vector<KernelRef> RowKernels();

}  // namespace lorad::kernels::cuda
