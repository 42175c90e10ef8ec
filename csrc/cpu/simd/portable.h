// 8-lane float vectors in plain C++: any CPU. The compiler vectorises the loops for its baseline.
// Included only inside namespace nsrt::cpu::NSRT_ISA.
#pragma once

#include <cstdint>

namespace nsrt::cpu::NSRT_ISA {

constexpr int kLanes = 8;
struct Vec {
  float v[kLanes];
};

template <class F>
inline Vec map(F f) {
  Vec out;
  for (int i = 0; i < kLanes; ++i) out.v[i] = f(i);
  return out;
}

inline float from_bits(uint32_t bits) { return __builtin_bit_cast(float, bits); }
inline uint32_t to_bits(float x) { return __builtin_bit_cast(uint32_t, x); }
inline float widen(uint16_t x) { return from_bits(static_cast<uint32_t>(x) << 16); }
// Round to nearest even; NaN stays NaN.
inline uint16_t narrow(float x) {
  const uint32_t bits = to_bits(x);
  const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  return static_cast<uint16_t>((x != x ? (bits | 0x400000u) : rounded) >> 16);
}

inline Vec set1(float x) {
  return map([&](int) { return x; });
}
inline Vec zero() { return set1(0.0f); }
inline Vec load(const float* p) {
  return map([&](int i) { return p[i]; });
}
inline Vec load_n(const float* p, int n) {
  return map([&](int i) { return i < n ? p[i] : 0.0f; });
}
inline Vec load(const uint16_t* p) {
  return map([&](int i) { return widen(p[i]); });
}
inline Vec load_n(const uint16_t* p, int n) {
  return map([&](int i) { return i < n ? widen(p[i]) : 0.0f; });
}
inline void store_n(float* p, Vec v, int n) {
  for (int i = 0; i < n; ++i) p[i] = v.v[i];
}
inline void store(float* p, Vec v) { store_n(p, v, kLanes); }
inline void store_n(uint16_t* p, Vec v, int n) {
  for (int i = 0; i < n; ++i) p[i] = narrow(v.v[i]);
}
inline void store(uint16_t* p, Vec v) { store_n(p, v, kLanes); }

inline Vec add(Vec a, Vec b) {
  return map([&](int i) { return a.v[i] + b.v[i]; });
}
inline Vec sub(Vec a, Vec b) {
  return map([&](int i) { return a.v[i] - b.v[i]; });
}
inline Vec mul(Vec a, Vec b) {
  return map([&](int i) { return a.v[i] * b.v[i]; });
}
inline Vec div(Vec a, Vec b) {
  return map([&](int i) { return a.v[i] / b.v[i]; });
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return map([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
// b where either is NaN.
inline Vec max(Vec a, Vec b) {
  return map([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline Vec min(Vec a, Vec b) {
  return map([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
// To nearest even for |x| < 2^22 (the magic-number sum), which is all that exp() needs.
inline Vec round(Vec v) {
  constexpr float kMagic = 12582912.0f;
  return map([&](int i) { return (v.v[i] + kMagic) - kMagic; });
}
// 2^n for integral n in [-126, 127]; NaN gives some power, which its caller multiplies by NaN.
inline Vec pow2(Vec n) {
  return map([&](int i) {
    const float x = n.v[i] == n.v[i] ? n.v[i] : 0.0f;
    return from_bits(static_cast<uint32_t>(static_cast<int32_t>(x) + 127) << 23);
  });
}

inline float reduce_add(Vec v) {
  return ((v.v[0] + v.v[4]) + (v.v[2] + v.v[6])) + ((v.v[1] + v.v[5]) + (v.v[3] + v.v[7]));
}
inline void reduce4(Vec a, Vec b, Vec c, Vec d, float* out) {
  out[0] = reduce_add(a);
  out[1] = reduce_add(b);
  out[2] = reduce_add(c);
  out[3] = reduce_add(d);
}

inline void prefetch(const void* p) { __builtin_prefetch(p); }

constexpr bool kHasDot = false;

// Weight rows x activation rows whose sums are kept in registers at once.
constexpr int kMaxRowBlock = 1;

// Multiply-adds that depend on nothing but themselves: enough to fill the pipes, few enough for the registers.
constexpr int kFmaChains = 6;

}  // namespace nsrt::cpu::NSRT_ISA
