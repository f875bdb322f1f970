// The vocabulary of simd.h on AVX-512 (F, BW, VL), with the bf16 dot product where the unit is
// compiled for it.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lorad::kernels::cpu {
namespace {

constexpr int kLanes = 16;
using Vec = __m512;
using Pairs = __m512i;

#ifdef __AVX512BF16__
constexpr bool kDotNative = true;
#else
constexpr bool kDotNative = false;
#endif

LORAD_SIMD_INLINE __mmask16 FirstLanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }

LORAD_SIMD_INLINE Vec Zero() { return _mm512_setzero_ps(); }
LORAD_SIMD_INLINE Vec Set(float f) { return _mm512_set1_ps(f); }
LORAD_SIMD_INLINE Vec Load(const float* p) { return _mm512_loadu_ps(p); }
LORAD_SIMD_INLINE void Store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
LORAD_SIMD_INLINE Vec LoadPartial(const float* p, int n) {
  return _mm512_maskz_loadu_ps(FirstLanes(n), p);
}
LORAD_SIMD_INLINE void StorePartial(float* p, Vec v, int n) {
  _mm512_mask_storeu_ps(p, FirstLanes(n), v);
}
LORAD_SIMD_INLINE Vec Add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
LORAD_SIMD_INLINE Vec Sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
LORAD_SIMD_INLINE Vec Mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
LORAD_SIMD_INLINE Vec Div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
LORAD_SIMD_INLINE Vec Max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
LORAD_SIMD_INLINE Vec Min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
LORAD_SIMD_INLINE Vec Fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
LORAD_SIMD_INLINE Vec Sqrt(Vec a) { return _mm512_sqrt_ps(a); }
LORAD_SIMD_INLINE Vec RoundNearest(Vec a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
LORAD_SIMD_INLINE Vec MulPow2(Vec v, Vec n) {
  const __m512i shift = _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23);
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(v), shift));
}
LORAD_SIMD_INLINE Vec KeepNotLess(Vec v, Vec x, float limit) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, Set(limit), _CMP_NLT_UQ), v);
}

LORAD_SIMD_INLINE Pairs LoadPairs(const uint16_t* p) { return _mm512_loadu_si512(p); }
LORAD_SIMD_INLINE void StorePairs(uint16_t* p, Pairs w) { _mm512_storeu_si512(p, w); }
LORAD_SIMD_INLINE Vec Widen(const int8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}
// Small integers have no bits in the low half of a float.
LORAD_SIMD_INLINE Pairs DecodePairs(const int8_t* even, const int8_t* odd) {
  return _mm512_or_si512(_mm512_castps_si512(Widen(odd)),
                         _mm512_srli_epi32(_mm512_castps_si512(Widen(even)), 16));
}
LORAD_SIMD_INLINE Pairs SetPair(const uint16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof(pair));
  return _mm512_set1_epi32(pair);
}
LORAD_SIMD_INLINE Vec Even(Pairs w) { return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16)); }
LORAD_SIMD_INLINE Vec Odd(Pairs w) {
  return _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
LORAD_SIMD_INLINE Vec Dot(Vec acc, Pairs a, Pairs b) {
#ifdef __AVX512BF16__
  return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
#else
  return Fma(Odd(a), Odd(b), Fma(Even(a), Even(b), acc));
#endif
}

LORAD_SIMD_INLINE Vec LoadBf16(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
LORAD_SIMD_INLINE void StoreBf16(uint16_t* p, Vec v) {
#ifdef __AVX512BF16__
  const __m256i half = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v));
#else
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  const __m512i wide = _mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16);
  const __m256i half = _mm512_cvtepi32_epi16(wide);
#endif
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), half);
}

// Halves are added as lane i + lane i + 8, then 4, 2, 1: the order in which every instruction set
// here does it.
LORAD_SIMD_INLINE float Sum(Vec v) {
  const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
LORAD_SIMD_INLINE float MaxLane(Vec v) {
  const __m256 a = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

}  // namespace
}  // namespace lorad::kernels::cpu
