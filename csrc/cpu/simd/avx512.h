// 16-lane float vectors on AVX-512 (F, BW, VL, DQ), with the bf16 dot product where NSRT_AVX512_BF16 is set.
// Included only by translation units compiled for that ISA, inside namespace nsrt::cpu::NSRT_ISA.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace nsrt::cpu::NSRT_ISA {

constexpr int kLanes = 16;
using Vec = __m512;

inline __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1u); }

inline Vec zero() { return _mm512_setzero_ps(); }
inline Vec set1(float x) { return _mm512_set1_ps(x); }
inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
inline Vec load_n(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
inline void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
inline void store_n(float* p, Vec v, int n) { _mm512_mask_storeu_ps(p, first(n), v); }

inline Vec widen(__m256i bits) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)); }
inline Vec load(const uint16_t* p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline Vec load_n(const uint16_t* p, int n) { return widen(_mm256_maskz_loadu_epi16(first(n), p)); }

// Round to nearest even; NaN stays NaN.
inline __m256i narrow(Vec v) {
#ifdef NSRT_AVX512_BF16
  return (__m256i)_mm512_cvtneps_pbh(v);
#else
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16));
#endif
}
inline void store(uint16_t* p, Vec v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(v)); }
inline void store_n(uint16_t* p, Vec v, int n) { _mm256_mask_storeu_epi16(p, first(n), narrow(v)); }

inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
// b where either is NaN.
inline Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
inline Vec round(Vec v) { return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// 2^n for integral n in [-126, 127].
inline Vec pow2(Vec n) {
  const __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
  return _mm512_castsi512_ps(_mm512_slli_epi32(e, 23));
}

inline __m128 fold(Vec v) {
  const __m256 half =
      _mm256_add_ps(_mm512_castps512_ps256(v), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1)));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
inline float reduce_add(Vec v) {
  const __m128 q = fold(v);
  const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}

// The four sums, each added up in the same order.
inline void reduce4(Vec a, Vec b, Vec c, Vec d, float* out) {
  const Vec ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const Vec cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const Vec lo = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd)));
  const Vec hi = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd)));
  _mm_storeu_ps(out, fold(_mm512_add_ps(lo, hi)));
}

inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

#ifdef NSRT_AVX512_BF16
// Pairs of bf16 multiplied and added to 16 float lanes.
constexpr bool kHasDot = true;
constexpr int kDotLanes = 32;
using DotVec = __m512bh;
inline DotVec load_dot(const uint16_t* p) { return (DotVec)_mm512_loadu_si512(p); }
inline DotVec load_dot_n(const uint16_t* p, int n) {
  return (DotVec)_mm512_maskz_loadu_epi16(static_cast<__mmask32>((1ull << n) - 1ull), p);
}
inline Vec dot(Vec acc, DotVec a, DotVec b) { return _mm512_dpbf16_ps(acc, a, b); }
#else
constexpr bool kHasDot = false;
#endif

// Weight rows x activation rows whose sums are kept in registers at once.
constexpr int kMaxRowBlock = 6;

// Multiply-adds that depend on nothing but themselves: enough to fill the pipes, few enough for the registers.
constexpr int kFmaChains = 12;

}  // namespace nsrt::cpu::NSRT_ISA
