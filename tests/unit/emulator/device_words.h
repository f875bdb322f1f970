// Words in the emulated device's memory, and kernels on them, for tests of streams.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/gpu.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/runtime.h"

namespace lorad::emulator {

struct AddArgs {
  const int* x;
  const int* y;
  int* sum;
};
LORAD_KERNEL(32, 1) inline void AddKernel(AddArgs args) {
  if (kernels::cuda::Thread() == 0) *args.sum = *args.x + *args.y;
}
inline const kernels::cuda::KernelRef kAdd = kernels::cuda::MakeKernel("add", &AddKernel, 32);

inline int* NewDeviceWord(kernels::cuda::Runtime& runtime) {
  return static_cast<int*>(runtime.AllocateDevice(sizeof(int)).value());
}
inline int* NewHostWord(kernels::cuda::Runtime& runtime, int value) {
  int* const word = static_cast<int*>(runtime.AllocateHost(sizeof(int)).value());
  *word = value;
  return word;
}
inline void LaunchAdd(kernels::cuda::Runtime& runtime, kernels::cuda::Stream stream, const int* x,
                      const int* y, int* sum) {
  const AddArgs args{x, y, sum};
  runtime.Launch(stream, kAdd, {}, &args);
}
// The word at `at`, after all work of `stream`.
inline int Read(kernels::cuda::Runtime& runtime, kernels::cuda::Stream stream, const int* at) {
  int* const word = NewHostWord(runtime, -1);
  runtime.Copy(stream, word, at, sizeof(int));
  EXPECT_TRUE(runtime.Synchronize(stream).ok());
  const int value = *word;
  runtime.FreeHost(word);
  return value;
}

}  // namespace lorad::emulator
