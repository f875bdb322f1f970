// A CUDA runtime API without a GPU: the functions that kernels/cuda/device_runtime.cc calls, over
// an emulated device (tests/emulator/runtime.h), which runs streams late and ends the program on
// misuse. With the rules of the API that the emulator does not know: a thread must have selected
// its device, memory is not zeroed, a kernel gets only as much shared memory as it asked for.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "kernels/cuda/launch.h"
#include "tests/emulator/runtime.h"

namespace lorad::emulator {

// What the API says of the machine.
struct FakeMachine {
  int driver = CUDART_VERSION;  // 0: no driver
  int devices = 2;
  int compute_capability = 90;
  cudaError_t count_error = cudaSuccess;
  cudaError_t memory_error = cudaSuccess;       // of the next allocations
  cudaError_t instantiate_error = cudaSuccess;  // of the next graphs
};

// Puts another machine in the place of the one before, where nothing is open any more. The first
// machine is one of defaults.
void ResetFakeMachine(const FakeMachine& machine = {}, const RuntimeOptions& options = {});
FakeMachine& TheFakeMachine();
// The device, once it was selected.
EmulatedRuntime& TheFakeDevice();
// What cudaLaunchKernel finds at kernel.function, and what the kernel has of static shared memory.
void AddFakeKernel(const kernels::cuda::KernelRef& kernel, size_t static_shared_bytes);
int FakeAttributeCalls();  // of cudaFuncSetAttribute

}  // namespace lorad::emulator
