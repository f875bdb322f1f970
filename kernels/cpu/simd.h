// One small vector vocabulary over several instruction sets. The translation unit's own -m flags
// choose which: isa_avx512.cc sees 16 lanes, isa_avx2.cc 8, anything else 4. Everything lives in an
// anonymous namespace, so that the same kernel source compiled for two instruction sets never meets
// at link time.
//
// Rules for code included by an isa_*.cc:
// - no inline function or template with external linkage, hence no header of the standard library
// beyond <cstdint>/<cstddef>;
// - loops are over `kLanes`, never over a literal;
// - `a * b + c` is not contracted (-ffp-contract=off): say Fma where it is meant.
//
// What each header defines. Vec: kLanes floats. Pairs: kLanes 32-bit words of two bf16 each, the
// even one in the low half. No pointer need be aligned.
//
//   Zero() Set(f) Load(p) Store(p, v)
//   LoadPartial(p, n) StorePartial(p, v, n)   n in [0, kLanes]; lanes that are not loaded are 0
//   Add Sub Mul Div Max Min Sqrt RoundNearest
//   Fma(a, b, c)                              a * b + c
//   LoadPairs(p) SetPair(p)                   SetPair: the two bf16 at p in every lane
//   StorePairs(p, w)
//   Widen(p)                                  kLanes int8 as floats
//   DecodePairs(even, odd)                    pairs of kLanes int8 at each
//   Even(w) Odd(w)                            one half of each pair as floats
//   Dot(acc, a, b)                            acc + even * even + odd * odd, in an order of its own
//   LoadBf16(p) StoreBf16(p, v)               kLanes bf16, stored round-to-nearest-even
//   Sum(v) MaxLane(v)                         lane i with lane i + kLanes/2, then halves of that
//   MulPow2(v, n)                             v * 2^n for integral n in [-126, 127]
//   KeepNotLess(v, x, limit)                  x >= limit ? v : 0
//   Exp(v) Prefetch(p) PrefetchSecond(p)
//   kDotNative                                Dot is one instruction: multiply bf16 by bf16
#pragma once

#include <cstddef>
#include <cstdint>

#define LORAD_SIMD_INLINE [[gnu::always_inline]] inline

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include "kernels/cpu/simd_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__)
#include "kernels/cpu/simd_avx2.h"
#else
#include "kernels/cpu/simd_portable.h"
#endif

namespace lorad::kernels::cpu {
namespace {

LORAD_SIMD_INLINE void Prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }
// Into the second-level cache: for what is needed later than a first-level cache could hold it.
LORAD_SIMD_INLINE void PrefetchSecond(const void* p) { __builtin_prefetch(p, 0, 2); }

// e^x to about 2 units in the last place; 0 below the smallest normal result, and clamped
// above 88.37.
LORAD_SIMD_INLINE Vec Exp(Vec x) {
  constexpr float kMin = -87.33654f;
  const Vec clamped = Min(Max(x, Set(kMin)), Set(88.37626f));
  const Vec n = RoundNearest(Mul(clamped, Set(1.44269504f)));
  // ln 2 in two parts, so that the remainder is exact.
  const Vec r = Fma(n, Set(2.12194440e-4f), Fma(n, Set(-0.693359375f), clamped));
  Vec p = Set(1.9875691500e-4f);
  p = Fma(p, r, Set(1.3981999507e-3f));
  p = Fma(p, r, Set(8.3334519073e-3f));
  p = Fma(p, r, Set(4.1665795894e-2f));
  p = Fma(p, r, Set(1.6666665459e-1f));
  p = Fma(p, r, Set(5.0000001201e-1f));
  p = Fma(p, Mul(r, r), Add(r, Set(1.0f)));
  return KeepNotLess(MulPow2(p, n), x, kMin);
}

// std::min would be an inline function of external linkage.
constexpr int Smaller(int a, int b) { return a < b ? a : b; }

inline float Bf16ToFloat(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  __builtin_memcpy(&value, &wide, sizeof(value));
  return value;
}

inline uint16_t FloatToBf16(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7fffffffu) > 0x7f800000u)
    return static_cast<uint16_t>((bits >> 16) | 0x40u);  // a quiet NaN
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace
}  // namespace lorad::kernels::cpu
