// The vocabulary of simd.h on AVX2 with FMA.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lorad::kernels::cpu {
namespace {

constexpr int kLanes = 8;
using Vec = __m256;
using Pairs = __m256i;
constexpr bool kDotNative = false;

LORAD_SIMD_INLINE __m256i FirstLanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

LORAD_SIMD_INLINE Vec Zero() { return _mm256_setzero_ps(); }
LORAD_SIMD_INLINE Vec Set(float f) { return _mm256_set1_ps(f); }
LORAD_SIMD_INLINE Vec Load(const float* p) { return _mm256_loadu_ps(p); }
LORAD_SIMD_INLINE void Store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
LORAD_SIMD_INLINE Vec LoadPartial(const float* p, int n) {
  return _mm256_maskload_ps(p, FirstLanes(n));
}
LORAD_SIMD_INLINE void StorePartial(float* p, Vec v, int n) {
  _mm256_maskstore_ps(p, FirstLanes(n), v);
}
LORAD_SIMD_INLINE Vec Add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
LORAD_SIMD_INLINE Vec Sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
LORAD_SIMD_INLINE Vec Mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
LORAD_SIMD_INLINE Vec Div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
LORAD_SIMD_INLINE Vec Max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
LORAD_SIMD_INLINE Vec Min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
LORAD_SIMD_INLINE Vec Fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
LORAD_SIMD_INLINE Vec Sqrt(Vec a) { return _mm256_sqrt_ps(a); }
LORAD_SIMD_INLINE Vec RoundNearest(Vec a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
LORAD_SIMD_INLINE Vec MulPow2(Vec v, Vec n) {
  const __m256i shift = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), shift));
}
LORAD_SIMD_INLINE Vec KeepNotLess(Vec v, Vec x, float limit) {
  return _mm256_and_ps(_mm256_cmp_ps(x, Set(limit), _CMP_NLT_UQ), v);
}

LORAD_SIMD_INLINE Pairs LoadPairs(const uint16_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
LORAD_SIMD_INLINE void StorePairs(uint16_t* p, Pairs w) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), w);
}
LORAD_SIMD_INLINE Vec Widen(const int8_t* p) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}
// Small integers have no bits in the low half of a float.
LORAD_SIMD_INLINE Pairs DecodePairs(const int8_t* even, const int8_t* odd) {
  return _mm256_or_si256(_mm256_castps_si256(Widen(odd)),
                         _mm256_srli_epi32(_mm256_castps_si256(Widen(even)), 16));
}
LORAD_SIMD_INLINE Pairs SetPair(const uint16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof(pair));
  return _mm256_set1_epi32(pair);
}
LORAD_SIMD_INLINE Vec Even(Pairs w) { return _mm256_castsi256_ps(_mm256_slli_epi32(w, 16)); }
LORAD_SIMD_INLINE Vec Odd(Pairs w) {
  return _mm256_castsi256_ps(_mm256_and_si256(w, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}
LORAD_SIMD_INLINE Vec Dot(Vec acc, Pairs a, Pairs b) {
  return Fma(Odd(a), Odd(b), Fma(Even(a), Even(b), acc));
}

LORAD_SIMD_INLINE Vec LoadBf16(const uint16_t* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
LORAD_SIMD_INLINE void StoreBf16(uint16_t* p, Vec v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i wide = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  const __m128i half =
      _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), half);
}

LORAD_SIMD_INLINE float Sum(Vec v) {
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
LORAD_SIMD_INLINE float MaxLane(Vec v) {
  const __m128 b = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

}  // namespace
}  // namespace lorad::kernels::cpu
