// The random numbers of sampling, the same on the host and on a device.
//
// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11): a
// counter-based generator. The n-th number of a seed is a function of (seed, n) alone: nothing to
// store, nothing that the order of requests could change. Pure functions; thread-safe.
#pragma once

#include <cstdint>

#include "kernels/cuda/host_device.h"

namespace lorad::kernels {

struct PhiloxCounter {
  uint32_t words[4];
};
struct PhiloxKey {
  uint32_t words[2];
};

LORAD_HOST_DEVICE constexpr PhiloxCounter Philox4x32(PhiloxCounter counter, PhiloxKey key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t left = uint64_t{0xD2511F53} * counter.words[0];
    const uint64_t right = uint64_t{0xCD9E8D57} * counter.words[2];
    counter = {{static_cast<uint32_t>(right >> 32) ^ counter.words[1] ^ key.words[0],
                static_cast<uint32_t>(right),
                static_cast<uint32_t>(left >> 32) ^ counter.words[3] ^ key.words[1],
                static_cast<uint32_t>(left)}};
    key.words[0] += 0x9E3779B9;
    key.words[1] += 0xBB67AE85;
  }
  return counter;
}

// The `index`-th number of `seed`, uniform in [0, 1), 53 bits: counter {index, 0, 0}, key seed (low
// words first).
LORAD_HOST_DEVICE constexpr double UniformAt(uint64_t seed, uint64_t index) {
  const PhiloxCounter random =
      Philox4x32({{static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), 0, 0}},
                 {{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)}});
  const uint64_t bits = (uint64_t{random.words[1]} << 32 | random.words[0]) >> 11;
  return static_cast<double>(bits) * 0x1.0p-53;
}

}  // namespace lorad::kernels
