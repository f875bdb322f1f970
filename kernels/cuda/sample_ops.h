// Sample ops: from rows of fp32 logits to tokens on the device.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/views.h"

namespace lorad::kernels::cuda {

struct SampleParams {
  TensorView logits;  // fp32 [_, vocab]
  int vocab = 0;
  const SampleRow* rows = nullptr;  // [count] in device memory
  int count = 0;                    // a row with .row < 0 is skipped
  int32_t* tokens = nullptr;        // [count]
};
// The same token as the host's Sampler (model/sampling.h) for the same logits and parameters,
// except where two sums in another order round to different sides of a cut.
void LaunchSample(Launcher& launch, const DeviceFacts& device, const SampleParams& params);

std::vector<KernelRef> SampleKernels();

}  // namespace lorad::kernels::cuda
