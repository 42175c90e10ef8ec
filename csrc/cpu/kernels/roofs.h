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

// ... and in several streams with the next block of them prefetched, as a product may read the rows of its weights.
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

#if defined(NSRT_AMX)
// Four products of tiles a round, 16 x 16 x 32 multiply-adds each.
constexpr int kPairChains = 4 * kTile * kTile * kTileDepth / 2 / kLanes;
inline float multiply_pairs(int64_t rounds, float a, float b) {
  alignas(64) uint16_t x[kTile * kTileDepth], y[kTile * kTileDepth];
  for (int i = 0; i < kTile * kTileDepth; i += kLanes) {
    store(x + i, set1(a));
    store(y + i, set1(b));
  }
  configure_tiles(kTile, kTile);
  _tile_loadd(4, x, kTileBytes);
  _tile_loadd(5, x, kTileBytes);
  _tile_loadd(6, y, kTileBytes);
  _tile_loadd(7, y, kTileBytes);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t i = 0; i < rounds; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  alignas(64) float sums[4][kTile * kTile];
  _tile_stored(0, sums[0], kTileBytes);
  _tile_stored(1, sums[1], kTileBytes);
  _tile_stored(2, sums[2], kTileBytes);
  _tile_stored(3, sums[3], kTileBytes);
  _tile_release();
  return read_in_order(sums[0], 4 * kTile * kTile);
}
#elif defined(NSRT_AVX512_BF16)
constexpr int kPairChains = kFmaChains;
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
#else
constexpr int kPairChains = 0;
#endif

constexpr RoofTable kRoofs = {
    .lanes = kLanes,
    .chains = kFmaChains,
    .pair_chains = kPairChains,
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
