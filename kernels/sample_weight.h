// How much a token weighs when one is drawn, the same on the host and (but for a fused
// multiply-add) on a device.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/host_device.h"

namespace lorad::kernels {

// exp(x) for x <= 0, relative error below 2e-7, 0 below -87 and for NaN. Branch-free, so that loops
// over a row vectorise, and the same with every vector width.
LORAD_HOST_DEVICE inline float ExpNonPositive(float x) {
  const float clamped = x > -87.0f ? x : -87.0f;
  constexpr float kRound =
      12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const float shifted = clamped * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  const int32_t exponent =
      __builtin_bit_cast(int32_t, shifted) - __builtin_bit_cast(int32_t, kRound);
  const float power = __builtin_bit_cast(float, (exponent + 127) << 23);
  const float value = p * power;
  return x > -87.0f ? value : 0.0f;
}

// The logit at which a token is as likely as `share` times the likeliest one, whose logit is `max`.
// In double, so that host and device round to the same float. REQUIRES: 0 < share <= 1.
LORAD_HOST_DEVICE inline float LogitOfShare(float max, float temperature, double share) {
  return static_cast<float>(static_cast<double>(max) +
                            static_cast<double>(temperature) * log(share));
}

}  // namespace lorad::kernels
