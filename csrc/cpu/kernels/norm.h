// RMSNorm, LayerNorm with optional affine and modulation (the token-wise normalization is the one without), and RoPE.
// Statistics in float32, two passes. Bound by cache bandwidth.
// Included only inside namespace nsrt::cpu::NSRT_ISA.
#pragma once

namespace nsrt::cpu::NSRT_ISA {

inline float sum_of_squares(const float* x, float shift, int64_t n) {
  Vec acc = zero();
  for_each_vec(n, [&](int64_t i, int c) {
    // Lanes past the end must add nothing, so they are loaded as `shift` would be: zero after the subtraction.
    Vec v = load_some(x + i, c);
    if (c == kLanes) {
      v = sub(v, set1(shift));
    } else {
      float lanes[kLanes];
      store(lanes, sub(v, set1(shift)));
      v = load_n(lanes, c);
    }
    acc = fma(v, v, acc);
  });
  return reduce_add(acc);
}

inline void rms_norm(const float* x, const float* w, int64_t n, float eps, float* y) {
  const float inv = 1.0f / __builtin_sqrtf(sum_of_squares(x, 0.0f, n) / static_cast<float>(n) + eps);
  for_each_vec(n, [&](int64_t i, int c) {
    store_some(y + i, mul(mul(load_some(x + i, c), set1(inv)), load_some(w + i, c)), c);
  });
}

inline void layer_norm(const float* x, const float* w, const float* b, const float* shift, const float* scale,
                       int64_t n, float eps, float* y) {
  Vec total = zero();
  for_each_vec(n, [&](int64_t i, int c) { total = add(total, load_some(x + i, c)); });
  const float mean = reduce_add(total) / static_cast<float>(n);
  const float inv = 1.0f / __builtin_sqrtf(sum_of_squares(x, mean, n) / static_cast<float>(n) + eps);
  for_each_vec(n, [&](int64_t i, int c) {
    Vec v = mul(sub(load_some(x + i, c), set1(mean)), set1(inv));
    if (w) v = fma(v, load_some(w + i, c), load_some(b + i, c));
    if (scale) v = fma(v, add(set1(1.0f), load_some(scale + i, c)), load_some(shift + i, c));
    store_some(y + i, v, c);
  });
}

inline void rope(const float* x, const float* cos, const float* sin, int64_t d_head, float* y) {
  const int64_t half = d_head / 2;
  for_each_vec(half, [&](int64_t i, int c) {
    const Vec a = load_some(x + i, c), b = load_some(x + half + i, c);
    const Vec co = load_some(cos + i, c), si = load_some(sin + i, c);
    store_some(y + i, sub(mul(a, co), mul(b, si)), c);
    store_some(y + half + i, fma(a, si, mul(b, co)), c);
  });
}

}  // namespace nsrt::cpu::NSRT_ISA
