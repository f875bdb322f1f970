// The elements of weight files as fp32, and fp32 as bf16. For load time: kernels have their own,
// vectorised.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "kernels/types.h"

namespace lorad::kernels::cpu {

inline float FloatOfBf16(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

// Round to nearest, ties to even; a NaN stays one.
inline uint16_t Bf16OfFloat(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float FloatOfF16(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  const uint32_t magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u) {
    return std::bit_cast<float>(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  }
  // Not by way of an fp32 denormal, which a thread that flushes them would lose.
  if (magnitude < 0x400u) {
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
}

// Element `index` of a file's matrix as fp32. `data` need not be aligned.
template <DType kType>
float FloatAt(const void* data, int64_t index) {
  const auto* at = static_cast<const std::byte*>(data) + index * int64_t{SizeOf(kType)};
  if constexpr (kType == DType::kF32) {
    float value;
    std::memcpy(&value, at, sizeof(value));
    return value;
  } else {
    uint16_t bits;
    std::memcpy(&bits, at, sizeof(bits));
    return kType == DType::kBF16 ? FloatOfBf16(bits) : FloatOfF16(bits);
  }
}

// Element `index` of a file's matrix as bf16. `data` need not be aligned.
template <DType kType>
uint16_t Bf16At(const void* data, int64_t index) {
  const auto* at = static_cast<const std::byte*>(data) + index * int64_t{SizeOf(kType)};
  if constexpr (kType == DType::kF32) {
    float value;
    std::memcpy(&value, at, sizeof(value));
    return Bf16OfFloat(value);
  } else {
    uint16_t bits;
    std::memcpy(&bits, at, sizeof(bits));
    return kType == DType::kBF16 ? bits : Bf16OfFloat(FloatOfF16(bits));
  }
}

// Calls fn with the element type as a template argument.
template <typename Fn>
void WithType(DType dtype, const Fn& fn) {
  switch (dtype) {
    case DType::kF32:
      return fn.template operator()<DType::kF32>();
    case DType::kF16:
      return fn.template operator()<DType::kF16>();
    case DType::kBF16:
      return fn.template operator()<DType::kBF16>();
  }
}

}  // namespace lorad::kernels::cpu
