// What the hardware allows, for comparison with the kernels: reading, copying, multiplying on registers alone.
// Included only inside namespace nsrt::cpu::NSRT_ISA.
#pragma once

namespace nsrt::cpu::NSRT_ISA {

constexpr int kStreams = 8;

// f(0) to f(N - 1), unrolled, so that what they index stays in registers.
template <int N, class F>
[[gnu::always_inline]] inline void each(F&& f) {
  if constexpr (N > 0) {
    each<N - 1>(f);
    f(N - 1);
  }
}

template <int N>
inline float total(Vec (&sums)[N]) {
  each<N - 1>([&](int i) { sums[0] = add(sums[0], sums[i + 1]); });
  return reduce_add(sums[0]);
}

// The sum of n floats, a multiple of kStreams * kLanes, read in one stream and in the order of their addresses ...
inline float read_in_order(const float* p, int64_t n) {
  Vec sums[kStreams];
  each<kStreams>([&](int s) { sums[s] = zero(); });
  for (int64_t i = 0; i < n; i += kStreams * kLanes)
    each<kStreams>([&](int s) { sums[s] = add(sums[s], load(p + i + s * kLanes)); });
  return total(sums);
}

// ... and in several streams with the next block of them prefetched, as a product reads the rows of its weights.
inline float read_in_streams(const float* p, int64_t n) {
  constexpr int64_t kRow = 64 * kLanes;  // floats of a stream in a block
  const int64_t blocks = n / (kStreams * kRow);
  Vec sums[kStreams];
  each<kStreams>([&](int s) { sums[s] = zero(); });
  for (int64_t b = 0; b < blocks; ++b, p += kStreams * kRow) {
    for (int64_t i = 0; i < kRow; i += kLanes) {
      each<kStreams>([&](int s) {
        prefetch(p + s * kRow + i + kStreams * kRow);
        sums[s] = add(sums[s], load(p + s * kRow + i));
      });
    }
  }
  return total(sums) + read_in_order(p, n - blocks * kStreams * kRow);
}

inline void copy(const float* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; i += kLanes) store(to + i, load(from + i));
}

// A number that depends on all of it; 2 * kFmaChains * kLanes operations a round.
inline float multiply_floats(int64_t rounds, float a, float b) {
  Vec chains[kFmaChains];
  each<kFmaChains>([&](int c) { chains[c] = zero(); });
  const Vec x = set1(a), y = set1(b);
  for (int64_t i = 0; i < rounds; ++i) each<kFmaChains>([&](int c) { chains[c] = fma(chains[c], x, y); });
  return total(chains);
}

#ifdef NSRT_AVX512_BF16
// 4 * kFmaChains * kLanes operations a round: a lane multiplies and adds a pair.
inline float multiply_pairs(int64_t rounds, float a, float b) {
  Vec chains[kFmaChains];
  each<kFmaChains>([&](int c) { chains[c] = zero(); });
  uint16_t x[kDotLanes], y[kDotLanes];
  each<kDotLanes / kLanes>([&](int i) {
    store(x + i * kLanes, set1(a));
    store(y + i * kLanes, set1(b));
  });
  const DotVec u = load_dot(x), v = load_dot(y);
  for (int64_t i = 0; i < rounds; ++i) each<kFmaChains>([&](int c) { chains[c] = dot(chains[c], u, v); });
  return total(chains);
}
#endif

constexpr RoofTable kRoofs = {
    .lanes = kLanes,
    .chains = kFmaChains,
    .read_in_order = read_in_order,
    .read_in_streams = read_in_streams,
    .copy = copy,
    .multiply_floats = multiply_floats,
#ifdef NSRT_AVX512_BF16
    .multiply_pairs = multiply_pairs,
#else
    .multiply_pairs = nullptr,
#endif
};

}  // namespace nsrt::cpu::NSRT_ISA
