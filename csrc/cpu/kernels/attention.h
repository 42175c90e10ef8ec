// One block of flash decoding: scores = q . k, their maximum and exponentials, and the weighted sum of values, for the
// g query heads of one kv head. k, v: float32 or bf16 [positions, d_head]; float32 accumulation.
// Bound by reading k and v once: the block (at most kAttentionBlock positions) stays in cache for the other heads.
// Included only inside namespace nsrt::cpu::NSRT_ISA.
#pragma once

namespace nsrt::cpu::NSRT_ISA {

template <class T>
inline void attention_scores(const float* q, const T* k, int64_t positions, int64_t d, float* scores) {
  for (int64_t s = 0; s < positions; s += 4) {
    const T* row[4];
    for (int i = 0; i < 4; ++i) row[i] = k + (s + i < positions ? s + i : positions - 1) * d;
    Vec acc[4] = {zero(), zero(), zero(), zero()};
    for_each_vec(d, [&](int64_t i, int c) {
      const Vec qv = load_some(q + i, c);
      for (int j = 0; j < 4; ++j) acc[j] = fma(load_some(row[j] + i, c), qv, acc[j]);
    });
    alignas(16) float sums[4];
    reduce4(acc[0], acc[1], acc[2], acc[3], sums);
    for (int i = 0; i < 4 && s + i < positions; ++i) scores[s + i] = sums[i];
  }
}

// scores <- exp(scores - max); returns their sum.
inline float exponentials(float* scores, float max, int64_t n) {
  Vec acc = zero();
  for_each_vec(n, [&](int64_t i, int c) {
    const Vec e = exp(sub(load_some(scores + i, c), set1(max)));
    store_some(scores + i, e, c);
    // Re-read, so that lanes past the end count as zero.
    acc = add(acc, load_some(scores + i, c));
  });
  return reduce_add(acc);
}

template <class T>
inline void weighted_values(const float* p, const T* v, int64_t positions, int64_t d, float* out) {
  constexpr int kUnroll = 8;
  for (int64_t i = 0; i < d; i += kUnroll * kLanes) {
    const int64_t width = d - i < kUnroll * kLanes ? d - i : kUnroll * kLanes;
    Vec acc[kUnroll];
    for (int u = 0; u < kUnroll; ++u) acc[u] = zero();
    for (int64_t s = 0; s < positions; ++s) {
      const Vec w = set1(p[s]);
      const T* row = v + s * d + i;
      for (int u = 0; u < kUnroll; ++u) {
        const int64_t left = width - u * kLanes;
        if (left <= 0) break;
        acc[u] = fma(w, load_some(row + u * kLanes, static_cast<int>(left < kLanes ? left : kLanes)), acc[u]);
      }
    }
    for (int u = 0; u < kUnroll && u * kLanes < width; ++u) {
      const int64_t left = width - u * kLanes;
      store_some(out + i + u * kLanes, acc[u], static_cast<int>(left < kLanes ? left : kLanes));
    }
  }
}

template <class T>
inline void attention_block_typed(const AttentionBlockArgs& a) {
  const auto* k = static_cast<const T*>(a.k);
  const auto* v = static_cast<const T*>(a.v);
  for (int64_t h = 0; h < a.g; ++h) {
    attention_scores(a.q + h * a.d_head, k, a.positions, a.d_head, a.scores);
    float max = a.scores[0];
    for (int64_t s = 1; s < a.positions; ++s) max = a.scores[s] > max ? a.scores[s] : max;
    a.max[h] = max;
    a.sum[h] = exponentials(a.scores, max, a.positions);
    weighted_values(a.scores, v, a.positions, a.d_head, a.out + h * a.d_head);
  }
}

inline void attention_block(const AttentionBlockArgs& a) {
  if (a.kv_dtype == DType::kBFloat16) return attention_block_typed<uint16_t>(a);
  attention_block_typed<float>(a);
}

}  // namespace nsrt::cpu::NSRT_ISA
