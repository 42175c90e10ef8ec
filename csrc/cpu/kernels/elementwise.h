// Elementwise ops around the products; n is any length. Bound by cache bandwidth, or by exp().
// Included only inside namespace nsrt::cpu::NSRT_ISA.
#pragma once

namespace nsrt::cpu::NSRT_ISA {

// exp(x) to about 2 ulp: 2^n * p(r), r = x - n ln 2 in two parts, p the degree-6 minimax polynomial of Cephes' expf
// (Moshier, netlib). Clamped to float's normal range; NaN passes through.
inline Vec exp(Vec x) {
  x = min(set1(88.3762626647949f), max(set1(-87.3365478515625f), x));
  const Vec n = round(mul(x, set1(1.44269504088896341f)));
  Vec r = fma(n, set1(-0.693359375f), x);
  r = fma(n, set1(2.12194440e-4f), r);
  Vec p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  p = fma(mul(p, r), r, add(r, set1(1.0f)));
  return mul(p, pow2(n));
}

// x / (1 + exp(-x)). Below -88 it is zero to float32; clamped there, because exp saturates instead of overflowing.
inline Vec silu(Vec x) {
  x = max(set1(-88.0f), x);
  return div(x, add(set1(1.0f), exp(sub(zero(), x))));
}

// Calls f(offset, count, load, store) for whole vectors, then once for the rest: the same arithmetic for every element.
template <class F>
inline void for_each_vec(int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, kLanes);
  if (i < n) f(i, static_cast<int>(n - i));
}

template <class T>
inline Vec load_some(const T* p, int count) {
  return count == kLanes ? load(p) : load_n(p, count);
}
template <class T>
inline void store_some(T* p, Vec v, int count) {
  if (count == kLanes)
    store(p, v);
  else
    store_n(p, v, count);
}

inline Vec plus_bias(const float* x, const float* bias, int64_t i, int c) {
  const Vec v = load_some(x + i, c);
  return bias ? add(v, load_some(bias + i, c)) : v;
}

inline void epilogue(const float* x, const float* bias, const float* residual, bool act, int64_t n, float* y) {
  for_each_vec(n, [&](int64_t i, int c) {
    Vec v = plus_bias(x, bias, i, c);
    if (act) v = silu(v);
    if (residual) v = add(v, load_some(residual + i, c));
    store_some(y + i, v, c);
  });
}

inline void gated_residual(const float* x, const float* bias, const float* gate, int64_t n, float* h) {
  for_each_vec(n, [&](int64_t i, int c) {
    store_some(h + i, fma(load_some(gate + i, c), plus_bias(x, bias, i, c), load_some(h + i, c)), c);
  });
}

inline void silu_mul(const float* a, const float* a_bias, const float* b, const float* b_bias, int64_t n, float* y) {
  for_each_vec(n, [&](int64_t i, int c) {
    store_some(y + i, mul(silu(plus_bias(a, a_bias, i, c)), plus_bias(b, b_bias, i, c)), c);
  });
}

inline void silu_add(const float* a, const float* b, int64_t n, float* y) {
  for_each_vec(n, [&](int64_t i, int c) { store_some(y + i, silu(plus_bias(a, b, i, c)), c); });
}

inline void update(const float* x, const float* v, const float* e, float cx, float cv, float ce, int64_t n, float* y) {
  for_each_vec(n, [&](int64_t i, int c) {
    Vec out = fma(set1(cv), load_some(v + i, c), mul(set1(cx), load_some(x + i, c)));
    if (e) out = fma(set1(ce), load_some(e + i, c), out);
    store_some(y + i, out, c);
  });
}

inline void to_bf16(const float* x, int64_t n, uint16_t* y) {
  for_each_vec(n, [&](int64_t i, int c) { store_some(y + i, load_some(x + i, c), c); });
}

inline void weighted_sum(const float* x, int64_t x_stride, const float* a, int64_t count, int64_t n, float* y) {
  for_each_vec(n, [&](int64_t i, int c) {
    Vec out = zero();
    for (int64_t j = 0; j < count; ++j) out = fma(set1(a[j]), load_some(x + j * x_stride + i, c), out);
    store_some(y + i, out, c);
  });
}

}  // namespace nsrt::cpu::NSRT_ISA
