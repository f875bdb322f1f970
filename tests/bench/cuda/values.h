// Numbers that a kernel can make in device memory and the host can name one by one: a benchmark's
// inputs are filled in place, and a sample of its outputs is checked against what they must be.
#pragma once

#include <cstdint>

#include "kernels/cuda/host_device.h"

namespace lorad::bench {

// Value `index` of stream `seed`: a multiple of 1/128 in [-1, 1), exact in bf16.
LORAD_HOST_DEVICE constexpr float ValueAt(uint32_t seed, uint64_t index) {
  uint64_t z = index + seed * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<float>(static_cast<int>((z >> 40) & 0xff) - 128) / 128.0f;
}

}  // namespace lorad::bench
