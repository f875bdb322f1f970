// Kernels that measure the device rather than lorad: what it can read, copy and multiply at best.
// Every figure of the benchmark is a fraction of these, taken in the same process.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/runtime.h"

namespace lorad::bench {

// data[i] = ValueAt(seed, first + i) as bf16 (or fp32), count elements; rows of `stride` elements
// of which `cols` are filled and the others zero.
struct FillArgs {
  void* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;
  uint32_t seed = 0;
  bool full = false;
};
void LaunchFill(kernels::cuda::Launcher& launch, const kernels::cuda::DeviceFacts& device,
                const FillArgs& args);

// Reads `bytes` (a multiple of 16) once; `sink` [1] keeps the compiler honest.
void LaunchRead(kernels::cuda::Launcher& launch, const kernels::cuda::DeviceFacts& device,
                const void* data, size_t bytes, uint32_t* sink);
// Copies `bytes` (a multiple of 16).
void LaunchCopy(kernels::cuda::Launcher& launch, const kernels::cuda::DeviceFacts& device,
                const void* from, void* to, size_t bytes);
// `rounds` independent tensor-core products (m16n8k16, bf16) in each warp; returns the floating
// point operations of the launch.
double LaunchMultiply(kernels::cuda::Launcher& launch, const kernels::cuda::DeviceFacts& device,
                      int rounds, float* sink);

}  // namespace lorad::bench
