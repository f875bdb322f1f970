// Dense ops: the base model's linear layers on the GPU, with kernels of our own for any number of
// rows (cublas_matmul.h is the faster way for many rows of bf16 weights, where it is allowed).
//
// Numbers: an output is the sum over fixed chunks of the inputs, in order; how a chunk is summed
// and how chunks are added depends on the matrix alone. So a row's result has the same bits
// whatever the number of rows, the kernel or the grid.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/views.h"
#include "kernels/types.h"

namespace lorad::kernels::cuda {

// Matrices of equal width stacked by rows, in the form that the device holds (dense_weights.h);
// pure, any thread. A row takes WeightRowBytes(format, stride) bytes.
//   kBf16  [rows, stride] bf16, plain
//   kInt8  w = code * scale, scale = max|w of the row| / 127; scales [rows]
//   kFp8   w = code * scale, scale = max|w of the row| / 448; scales [rows]
//   kInt4  w = code * scale, scale = max|w of 64 inputs of a row| / 7; scales [rows, stride/64]
// Codes are the nearest, ties to even. REQUIRES: every value is finite.
struct HostWeights {
  std::vector<std::byte> data;
  std::vector<float> scales;
  int rows = 0;
  int cols = 0;
  int stride = 0;
};
HostWeights PackWeights(std::span<const HostMatrix> stacked, WeightFormat format);

struct GemmParams {
  int rows = 0;  // of x and y, >= 1
  TensorView x;  // bf16, [rows, w.cols]
  WeightsView w;
  TensorView y;               // bf16 or fp32, [rows, w.rows]
  bool accumulate = false;    // y += x W^T + bias
  void* workspace = nullptr;  // GemmWorkspaceBytes(rows, w), 256-byte aligned; zeros are not needed
};
size_t GemmWorkspaceBytes(const DeviceFacts& device, int rows, const WeightsView& w);
void LaunchGemm(Launcher& launch, const DeviceFacts& device, const GemmParams& params);

// Writes row `i` of the bf16 copy of w (dequantised) to out [rows, w.stride]: for a library's GEMM
// over weights that are kept in low precision.
void LaunchDequantise(Launcher& launch, const DeviceFacts& device, const WeightsView& w, void* out);

// Every kernel of this file, for checks of registers and launch limits.
std::vector<KernelRef> DenseKernels();

}  // namespace lorad::kernels::cuda
