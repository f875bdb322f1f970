// What kernels/cuda/gpu.h offers, on the host: one thread of a block is a fiber (block.h), so that
// barriers and warp operations may stand anywhere, as on the device.
//
// Stricter than a device: a warp operation or barrier that not every thread reaches, or that two
// lanes reach at different places, ends the program; shared memory starts as NaN and is checked by
// AddressSanitizer; asynchronous copies happen as late or as early as they may.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tests/emulator/block.h"

#define LORAD_DEVICE inline
#define LORAD_KERNEL(threads, blocks)
#define LORAD_SHARED(Type, name)                 \
  static const char name##_place = 0;            \
  ::lorad::kernels::cuda::Identity<Type>& name = \
      ::lorad::emulator::Shared<::lorad::kernels::cuda::Identity<Type>>(&name##_place)
#define LORAD_UNROLL
#define LORAD_ROLLED

namespace lorad::kernels::cuda {

template <typename T>
struct IdentityOf {
  using type = T;
};
template <typename T>
using Identity = typename IdentityOf<T>::type;

inline constexpr int kWarp = 32;

inline int Thread() { return emulator::Self().thread; }
inline int Threads() { return emulator::Self().threads; }
inline int Lane() { return Thread() % kWarp; }
inline int Warp() { return Thread() / kWarp; }
inline int BlockX() { return emulator::Self().block_x; }
inline int BlockY() { return emulator::Self().block_y; }
inline int BlocksX() { return emulator::Self().blocks_x; }
inline int BlocksY() { return emulator::Self().blocks_y; }

inline std::byte* DynamicShared() { return emulator::DynamicShared(); }

inline void SyncBlock() { emulator::SyncBlock(); }
inline void SyncWarp() { emulator::SyncWarp(); }
inline void Fence() { emulator::Fence(); }

template <typename T>
T ShuffleXor(T value, int mask) {
  return emulator::Exchange(value, "ShuffleXor")[Lane() ^ mask];
}
template <typename T>
T Shuffle(T value, int lane) {
  return emulator::Exchange(value, "Shuffle")[lane & (kWarp - 1)];
}
template <typename T>
T ShuffleUp(T value, int delta) {
  const auto all = emulator::Exchange(value, "ShuffleUp");
  return Lane() < delta ? value : all[Lane() - delta];
}
inline uint32_t Ballot(bool value) {
  const auto all = emulator::Exchange<int>(value, "Ballot");
  uint32_t bits = 0;
  for (int i = 0; i < kWarp; ++i) bits |= uint32_t{all[i] != 0} << i;
  return bits;
}
inline bool Any(bool value) { return Ballot(value) != 0; }

inline int AtomicAdd(int* at, int value) { return __atomic_fetch_add(at, value, __ATOMIC_RELAXED); }
inline unsigned AtomicAdd(unsigned* at, unsigned value) {
  return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

struct alignas(16) Vec4 {
  uint32_t x, y, z, w;
};
inline Vec4 Load16(const void* at) {
  emulator::CheckAligned(at, 16);
  Vec4 v;
  std::memcpy(&v, at, 16);
  return v;
}
inline Vec4 LoadOnce16(const void* at) { return Load16(at); }
inline Vec4 LoadAgain16(const void* at) { return Load16(at); }
inline void Store16(void* at, Vec4 v) {
  emulator::CheckAligned(at, 16);
  std::memcpy(at, &v, 16);
}

struct alignas(8) Vec2 {
  uint32_t x, y;
};
inline Vec2 Load8(const void* at) {
  emulator::CheckAligned(at, 8);
  Vec2 v;
  std::memcpy(&v, at, 8);
  return v;
}
inline void Store8(void* at, Vec2 v) {
  emulator::CheckAligned(at, 8);
  std::memcpy(at, &v, 8);
}
inline Vec2 LoadOnce8(const void* at) { return Load8(at); }

inline float Exp2(float x) { return x < -126.0f ? 0.0f : std::exp2(x); }

inline float BitsToFloat(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t FloatToBits(float value) { return std::bit_cast<uint32_t>(value); }
inline float FromBf16(uint16_t bits) { return BitsToFloat(uint32_t{bits} << 16); }
inline uint16_t ToBf16(float value) {
  const uint32_t bits = FloatToBits(value);
  if (std::isnan(value)) return 0x7fff;  // as cvt.rn.bf16 gives it
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline uint32_t PackBf16(float low, float high) {
  return uint32_t{ToBf16(low)} | uint32_t{ToBf16(high)} << 16;
}
inline float LowBf16(uint32_t packed) { return BitsToFloat(packed << 16); }
inline float HighBf16(uint32_t packed) { return BitsToFloat(packed & 0xffff0000u); }

inline uint32_t FmaBf16(uint32_t a, uint32_t b, uint32_t c) {
  // A product of two bf16 is exact in fp32.
  return PackBf16(LowBf16(a) * LowBf16(b) + LowBf16(c), HighBf16(a) * HighBf16(b) + HighBf16(c));
}

// See kernels/cuda/gpu.h for who holds what.
inline void Mma16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulator::MmaOperands operands{{d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  emulator::Multiply(operands);
  std::memcpy(d, operands.d, sizeof(d));
}

inline void CopyAsync16(void* shared, const void* global, bool keep = true) {
  emulator::CheckAligned(shared, 16);
  if (keep) emulator::CheckAligned(global, 16);
  emulator::CopyLater(shared, keep ? global : nullptr);
}
inline void CopyAsyncCommit() { emulator::CommitCopies(); }
template <int kPending>
void CopyAsyncWait() {
  emulator::AwaitCopies(kPending);
}

inline void LoadMatrix4(uint32_t (&r)[4], const void* shared_row) {
  emulator::CheckAligned(shared_row, 16);
  const auto rows = emulator::Exchange(shared_row, "LoadMatrix4");
  for (int j = 0; j < 4; ++j) {
    std::memcpy(&r[j], static_cast<const std::byte*>(rows[8 * j + Lane() / 4]) + Lane() % 4 * 4, 4);
  }
}

}  // namespace lorad::kernels::cuda

// CUDA's own mathematics that <cmath> lacks.
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
