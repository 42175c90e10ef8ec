// One block of flash decoding: scores = q . k, their maximum and exponentials, and the weighted sum of values, for the
// g query heads of one kv head. k, v: float32 or bf16 [positions, d_head]; float32 accumulation.
// Bound by reading k and v: several heads meet each of their rows while it is in a register.
// Included only inside namespace nsrt::cpu::NSRT_ISA.
#pragma once

namespace nsrt::cpu::NSRT_ISA {

// Heads that meet a row of k or v at once; kPositions rows of k, or kPieces vectors of a row of v, times so many heads
// are summed in registers.
constexpr int kMaxHeads = kMaxRowBlock >= 6 ? kMostHeads : kMaxRowBlock;
constexpr int kPositions = 4;
constexpr int kPieces = 4;

// scores[h, s] = q[h] . k[s] for H heads; rows of scores are `stride` apart.
template <int H, class T>
inline void attention_scores(const float* q, const T* k, int64_t positions, int64_t d, float* scores, int64_t stride) {
  for (int64_t s = 0; s < positions; s += kPositions) {
    const T* row[kPositions];
    for (int i = 0; i < kPositions; ++i) row[i] = k + (s + i < positions ? s + i : positions - 1) * d;
    Vec acc[H][kPositions];
    for (int h = 0; h < H; ++h)
      for (int i = 0; i < kPositions; ++i) acc[h][i] = zero();
    for_each_vec(d, [&](int64_t at, int c) {
      Vec kv[kPositions];
      for (int i = 0; i < kPositions; ++i) kv[i] = load_some(row[i] + at, c);
      for (int h = 0; h < H; ++h) {
        const Vec qv = load_some(q + h * d + at, c);
        for (int i = 0; i < kPositions; ++i) acc[h][i] = fma(kv[i], qv, acc[h][i]);
      }
    });
    for (int h = 0; h < H; ++h) {
      alignas(16) float sums[kPositions];
      reduce4(acc[h][0], acc[h][1], acc[h][2], acc[h][3], sums);
      for (int i = 0; i < kPositions && s + i < positions; ++i) scores[h * stride + s + i] = sums[i];
    }
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

// Pieces vectors, the last of them `last` lanes wide, of out[h] = sum_s p[h, s] v[s] for H heads.
template <int H, int Pieces, class T>
inline void weighted_pieces(const float* p, int64_t stride, const T* v, int64_t positions, int64_t d, int last,
                            float* out) {
  Vec acc[H][Pieces];
  for (int h = 0; h < H; ++h)
    for (int u = 0; u < Pieces; ++u) acc[h][u] = zero();
  for (int64_t s = 0; s < positions; ++s, v += d) {
    Vec row[Pieces];
    for (int u = 0; u < Pieces; ++u) row[u] = load_some(v + u * kLanes, u + 1 < Pieces ? kLanes : last);
    for (int h = 0; h < H; ++h) {
      const Vec w = set1(p[h * stride + s]);
      for (int u = 0; u < Pieces; ++u) acc[h][u] = fma(w, row[u], acc[h][u]);
    }
  }
  for (int h = 0; h < H; ++h)
    for (int u = 0; u < Pieces; ++u) store_some(out + h * d + u * kLanes, acc[h][u], u + 1 < Pieces ? kLanes : last);
}

// The vectors that cover d, up to Pieces of them at once.
template <int H, int Pieces, class T>
inline void weighted_values(const float* p, int64_t stride, const T* v, int64_t positions, int64_t d, int64_t i,
                            float* out) {
  for (; i + Pieces * kLanes <= d; i += Pieces * kLanes)
    weighted_pieces<H, Pieces>(p, stride, v + i, positions, d, kLanes, out + i);
  if (i == d) return;
  if constexpr (Pieces > 1) {
    if (d - i <= (Pieces - 1) * kLanes) return weighted_values<H, Pieces - 1>(p, stride, v, positions, d, i, out);
  }
  const auto last = static_cast<int>(d - i - (Pieces - 1) * kLanes);
  weighted_pieces<H, Pieces>(p, stride, v + i, positions, d, last, out + i);
}

// `heads` heads from number h on, H at most.
template <int H, class T>
inline void attention_heads(const AttentionBlockArgs& a, int64_t h, int64_t heads) {
  if constexpr (H > 1) {
    if (heads < H) return attention_heads<H - 1, T>(a, h, heads);
  }
  const int64_t stride = a.positions;
  attention_scores<H>(a.q + h * a.d_head, static_cast<const T*>(a.k), a.positions, a.d_head, a.scores, stride);
  for (int64_t i = 0; i < H; ++i) {
    float* scores = a.scores + i * stride;
    float max = scores[0];
    for (int64_t s = 1; s < a.positions; ++s) max = scores[s] > max ? scores[s] : max;
    a.max[h + i] = max;
    a.sum[h + i] = exponentials(scores, max, a.positions);
  }
  weighted_values<H, kPieces>(a.scores, stride, static_cast<const T*>(a.v), a.positions, a.d_head, 0,
                              a.out + h * a.d_head);
}

template <class T>
inline void attention_block_typed(const AttentionBlockArgs& a) {
  if (a.g == 0) return;
  const int64_t groups = (a.g + kMaxHeads - 1) / kMaxHeads, width = (a.g + groups - 1) / groups;
  for (int64_t h = 0; h < a.g; h += width) attention_heads<kMaxHeads, T>(a, h, a.g - h < width ? a.g - h : width);
}

inline void attention_block(const AttentionBlockArgs& a) {
  if (a.kv_dtype == DType::kBFloat16) return attention_block_typed<uint16_t>(a);
  attention_block_typed<float>(a);
}

}  // namespace nsrt::cpu::NSRT_ISA
