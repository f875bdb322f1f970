// The vocabulary of simd.h on the compiler's own 16-byte vectors: any processor, no intrinsics.
#pragma once

#include <cstdint>

namespace lorad::kernels::cpu {
namespace {

constexpr int kLanes = 4;
typedef float Vec __attribute__((vector_size(16)));
typedef uint32_t Pairs __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(16)));
constexpr bool kDotNative = false;

LORAD_SIMD_INLINE Vec Zero() { return Vec{}; }
LORAD_SIMD_INLINE Vec Set(float f) { return Vec{f, f, f, f}; }
LORAD_SIMD_INLINE Vec Load(const float* p) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
LORAD_SIMD_INLINE void Store(float* p, Vec v) { __builtin_memcpy(p, &v, sizeof(v)); }
LORAD_SIMD_INLINE Vec LoadPartial(const float* p, int n) {
  Vec v{};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
LORAD_SIMD_INLINE void StorePartial(float* p, Vec v, int n) {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}
LORAD_SIMD_INLINE Vec Add(Vec a, Vec b) { return a + b; }
LORAD_SIMD_INLINE Vec Sub(Vec a, Vec b) { return a - b; }
LORAD_SIMD_INLINE Vec Mul(Vec a, Vec b) { return a * b; }
LORAD_SIMD_INLINE Vec Div(Vec a, Vec b) { return a / b; }
LORAD_SIMD_INLINE Vec Max(Vec a, Vec b) { return a > b ? a : b; }
LORAD_SIMD_INLINE Vec Min(Vec a, Vec b) { return a < b ? a : b; }
LORAD_SIMD_INLINE Vec Fma(Vec a, Vec b, Vec c) { return a * b + c; }
LORAD_SIMD_INLINE Vec Sqrt(Vec a) {
  for (int i = 0; i < kLanes; ++i) a[i] = __builtin_sqrtf(a[i]);
  return a;
}
// REQUIRES: |a| < 2^22. Adding and taking away 1.5 * 2^23 leaves no bits below the point.
LORAD_SIMD_INLINE Vec RoundNearest(Vec a) {
  const Vec magic = Set(12582912.0f);
  return (a + magic) - magic;
}
LORAD_SIMD_INLINE Vec MulPow2(Vec v, Vec n) {
  const Ints shift = __builtin_convertvector(n, Ints) << 23;
  return reinterpret_cast<Vec>(reinterpret_cast<Ints>(v) + shift);
}
LORAD_SIMD_INLINE Vec KeepNotLess(Vec v, Vec x, float limit) {
  const Ints less = x < Set(limit);
  return reinterpret_cast<Vec>(reinterpret_cast<Ints>(v) & ~less);
}

LORAD_SIMD_INLINE Pairs LoadPairs(const uint16_t* p) {
  Pairs v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
LORAD_SIMD_INLINE void StorePairs(uint16_t* p, Pairs w) { __builtin_memcpy(p, &w, sizeof(w)); }
LORAD_SIMD_INLINE Vec Widen(const int8_t* p) {
  const Ints wide = {p[0], p[1], p[2], p[3]};
  return __builtin_convertvector(wide, Vec);
}
// Small integers have no bits in the low half of a float.
LORAD_SIMD_INLINE Pairs DecodePairs(const int8_t* even, const int8_t* odd) {
  return reinterpret_cast<Pairs>(Widen(odd)) | reinterpret_cast<Pairs>(Widen(even)) >> 16;
}
LORAD_SIMD_INLINE Pairs SetPair(const uint16_t* p) {
  uint32_t pair;
  __builtin_memcpy(&pair, p, sizeof(pair));
  return Pairs{pair, pair, pair, pair};
}
LORAD_SIMD_INLINE Vec Even(Pairs w) { return reinterpret_cast<Vec>(w << 16); }
LORAD_SIMD_INLINE Vec Odd(Pairs w) { return reinterpret_cast<Vec>(w & 0xffff0000u); }
LORAD_SIMD_INLINE Vec Dot(Vec acc, Pairs a, Pairs b) {
  return Fma(Odd(a), Odd(b), Fma(Even(a), Even(b), acc));
}

LORAD_SIMD_INLINE Vec LoadBf16(const uint16_t* p) {
  const Pairs wide = {p[0], p[1], p[2], p[3]};
  return reinterpret_cast<Vec>(wide << 16);
}
LORAD_SIMD_INLINE void StoreBf16(uint16_t* p, Vec v) {
  const Pairs bits = reinterpret_cast<Pairs>(v);
  const Pairs rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  const Pairs nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const Pairs wide = ((nan & (bits | 0x400000u)) | (~nan & rounded)) >> 16;
  for (int i = 0; i < kLanes; ++i) p[i] = static_cast<uint16_t>(wide[i]);
}

LORAD_SIMD_INLINE float Sum(Vec v) { return (v[0] + v[2]) + (v[1] + v[3]); }
LORAD_SIMD_INLINE float MaxLane(Vec v) {
  const float a = v[0] > v[2] ? v[0] : v[2];
  const float b = v[1] > v[3] ? v[1] : v[3];
  return a > b ? a : b;
}

}  // namespace
}  // namespace lorad::kernels::cpu
