// Weight-streaming product: y[r, n] = sum_k x[r, k] * w[n, k], float32 accumulation.
// w: float32 or bf16 rows as the checkpoint stores them; x: float32, or bf16 where the ISA has a bf16 dot product.
// Bound by reading w for a few rows, by arithmetic from about 5 (bf16 dot) or 4 (float32) rows on.
// NB weight rows x RB activation rows are summed in registers, each with a single chain over k, so that the order of
// additions of one output is the same for every NB, RB, thread count and batch.
// Included only inside namespace nsrt::cpu::NSRT_ISA.
#pragma once

namespace nsrt::cpu::NSRT_ISA {

constexpr int64_t kPrefetchBytes = 1024;  // of a row of weights, ahead of where they are used

// How two operands' elements meet: float32 lanes (either side widened) ...
template <class W>
struct FloatDot {
  using Weight = W;
  using Input = float;
  using WeightVec = Vec;
  using InputVec = Vec;
  static constexpr int kStep = kLanes;
  static Vec load_w(const W* p) { return load(p); }
  static Vec load_w_n(const W* p, int n) { return load_n(p, n); }
  static Vec load_x(const float* p) { return load(p); }
  static Vec load_x_n(const float* p, int n) { return load_n(p, n); }
  static Vec step(Vec acc, Vec w, Vec x) { return fma(w, x, acc); }
};

#if defined(NSRT_AVX512_BF16) && !defined(NSRT_AMX)
// ... or pairs of bf16.
struct Bf16Dot {
  using Weight = uint16_t;
  using Input = uint16_t;
  using WeightVec = DotVec;
  using InputVec = DotVec;
  static constexpr int kStep = kDotLanes;
  static DotVec load_w(const uint16_t* p) { return load_dot(p); }
  static DotVec load_w_n(const uint16_t* p, int n) { return load_dot_n(p, n); }
  static DotVec load_x(const uint16_t* p) { return load_dot(p); }
  static DotVec load_x_n(const uint16_t* p, int n) { return load_dot_n(p, n); }
  static Vec step(Vec acc, DotVec w, DotVec x) { return dot(acc, w, x); }
};
#endif

template <class D, int NB, int RB, bool Prefetch>
inline void matmul_block(const MatmulArgs& a, int64_t n, int64_t r) {
  const auto* w = static_cast<const typename D::Weight*>(a.w);
  const auto* x = static_cast<const typename D::Input*>(a.x) + r * a.x_stride;
  const typename D::Weight* rows[NB];
  for (int i = 0; i < NB; ++i) rows[i] = w + (n + i < a.n1 ? n + i : a.n1 - 1) * a.cols;
  Vec acc[NB][RB];
  for (int i = 0; i < NB; ++i)
    for (int j = 0; j < RB; ++j) acc[i][j] = zero();

  constexpr int64_t ahead = kPrefetchBytes / static_cast<int64_t>(sizeof(typename D::Weight));
  int64_t k = 0;
  for (; k + D::kStep <= a.cols; k += D::kStep) {
    typename D::WeightVec wv[NB];
    // A row ends where the row that follows it begins: past the end go on in the rows of the next block.
    const int64_t at = k + ahead + (k + ahead < a.cols ? 0 : (NB - 1) * a.cols);
    for (int i = 0; i < NB; ++i) {
      wv[i] = D::load_w(rows[i] + k);
      if constexpr (Prefetch) prefetch(rows[i] + at);
    }
    for (int j = 0; j < RB; ++j) {
      const typename D::InputVec xv = D::load_x(x + j * a.x_stride + k);
      for (int i = 0; i < NB; ++i) acc[i][j] = D::step(acc[i][j], wv[i], xv);
    }
  }
  if (const int tail = static_cast<int>(a.cols - k); tail > 0) {
    for (int j = 0; j < RB; ++j) {
      const typename D::InputVec xv = D::load_x_n(x + j * a.x_stride + k, tail);
      for (int i = 0; i < NB; ++i) acc[i][j] = D::step(acc[i][j], D::load_w_n(rows[i] + k, tail), xv);
    }
  }
  for (int j = 0; j < RB; ++j) {
    float* y = a.y + (r + j) * a.y_stride + n;
    for (int i = 0; i < NB; i += 4) {
      alignas(16) float sums[4];
      reduce4(acc[i][j], acc[i + 1][j], acc[i + 2][j], acc[i + 3][j], sums);
      for (int c = 0; c < 4 && n + i + c < a.n1; ++c) y[i + c] = sums[c];
    }
  }
}

// The last group of rows is narrower than RB: pick its width.
template <class D, int NB, int RB>
inline void matmul_tail(const MatmulArgs& a, int64_t n, int64_t r, int64_t left) {
  if constexpr (RB > 1) {
    if (left < RB) return matmul_tail<D, NB, RB - 1>(a, n, r, left);
  }
  // Only the first group of rows meets cold weights.
  if (r == 0)
    matmul_block<D, NB, RB, true>(a, n, r);
  else
    matmul_block<D, NB, RB, false>(a, n, r);
}

template <class D, int NB>
inline void matmul_columns(const MatmulArgs& a) {
  for (int64_t n = a.n0; n < a.n1; n += NB) {
    int64_t r = 0;
    while (r < a.rows) {
      const int64_t left = a.rows - r;
      // Groups of equal width beat full ones and a rest: 8 rows go as 4 + 4, not 6 + 2.
      const int64_t groups = (left + kMaxRowBlock - 1) / kMaxRowBlock;
      const int64_t width = (left + groups - 1) / groups;
      matmul_tail<D, NB, kMaxRowBlock>(a, n, r, width);
      r += width;
    }
  }
}

template <class D>
inline void matmul_typed(const MatmulArgs& a) {
  // One or two rows leave registers for twice the weight rows, which hides the latency of their few chains.
  if constexpr (kMaxRowBlock >= 6) {
    if (a.rows <= 2) {
      for (int64_t n = a.n0; n < a.n1; n += 8) {
        if (a.rows == 1)
          matmul_block<D, 8, 1, true>(a, n, 0);
        else
          matmul_block<D, 8, 2, true>(a, n, 0);
      }
      return;
    }
  }
  matmul_columns<D, 4>(a);
}

inline void matmul(const MatmulArgs& a) {
  if (a.rows == 0) return;
#if defined(NSRT_AMX)
  if (a.x_dtype == DType::kBFloat16) return matmul_tiles(a);
#elif defined(NSRT_AVX512_BF16)
  if (a.x_dtype == DType::kBFloat16) return matmul_typed<Bf16Dot>(a);
#endif
  if (a.w_dtype == DType::kBFloat16) return matmul_typed<FloatDot<uint16_t>>(a);
  matmul_typed<FloatDot<float>>(a);
}

}  // namespace nsrt::cpu::NSRT_ISA
