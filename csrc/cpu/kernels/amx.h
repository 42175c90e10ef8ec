// The product on AMX tiles: y[r, n] = sum_k x[r, k] * w[n, k], w and x bf16, float32 accumulation.
// A tile of weights is 16 rows x 32 k as the checkpoint stores them, row-major; x is packed so that a tile of it is 16
// pairs of k x up to 16 rows. One instruction multiplies the two whatever the number of rows, so 16 rows of x cost what
// one does and the product stays bound by reading w. The weights go tile by tile: with two of them at once, 32 rows are
// read in as many streams, and reading is slower by a twentieth.
// Every sum is one chain over k, in the same order for any number of rows, columns and threads. Like the dot product of
// AVX-512-BF16 it takes denormal numbers as zero.
// Included only inside namespace nsrt::cpu::NSRT_ISA.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace nsrt::cpu::NSRT_ISA {

constexpr int kTile = 16;       // rows of a tile of weights; at most so many rows of x in one
constexpr int kTileDepth = 32;  // bf16 numbers of k, a pair of them in each row of a tile of x
constexpr int64_t kTileBytes = 64;
constexpr int64_t kAhead = 128;  // numbers of a row that are prefetched before they are used

// GCC's tile intrinsics do not say which memory they read: what was written for them must be written by then.
inline void tiles_read_memory() { asm volatile("" ::: "memory"); }

// Tiles 0 to 3 hold sums [n, width], 4 and 5 weights [n, 32], 6 and 7 packed rows of x [16, 2 * width].
inline void configure_tiles(int n, int width) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  for (int t = 0; t < 8; ++t) {
    config.rows[t] = static_cast<uint8_t>(t < 6 ? n : kTile);
    config.row_bytes[t] = static_cast<uint16_t>(t == 4 || t == 5 ? kTileBytes : 4 * width);
  }
  tiles_read_memory();
  _tile_loadconfig(&config);
}

// 16 x 16 numbers of 32 bits, rows to columns.
inline void transpose(__m512i (&m)[kTile]) {
  __m512i t[kTile];
  for (int i = 0; i < kTile; i += 2) {
    t[i] = _mm512_unpacklo_epi32(m[i], m[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(m[i], m[i + 1]);
  }
  for (int i = 0; i < kTile; i += 4) {
    m[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    m[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    m[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    m[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // Now 4 x 4 blocks are transposed: a lane of 128 bits of m[4 i + j] is column j of a block. Then the blocks
  // themselves.
  for (int j = 0; j < 4; ++j) {
    t[j] = _mm512_shuffle_i32x4(m[j], m[4 + j], 0x88);
    t[4 + j] = _mm512_shuffle_i32x4(m[j], m[4 + j], 0xdd);
    t[8 + j] = _mm512_shuffle_i32x4(m[8 + j], m[12 + j], 0x88);
    t[12 + j] = _mm512_shuffle_i32x4(m[8 + j], m[12 + j], 0xdd);
  }
  for (int j = 0; j < 4; ++j) {
    m[j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0x88);
    m[4 + j] = _mm512_shuffle_i32x4(t[4 + j], t[12 + j], 0x88);
    m[8 + j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0xdd);
    m[12 + j] = _mm512_shuffle_i32x4(t[4 + j], t[12 + j], 0xdd);
  }
}

// A group of up to 16 rows of x as tiles, `width` columns each; rows past `rows` and k past `cols` are zero.
inline void pack_group(const uint16_t* x, int64_t stride, int rows, int64_t cols, int width, uint32_t* out) {
  const auto columns = static_cast<__mmask16>((1u << width) - 1u);
  for (int64_t k = 0; k < cols; k += kTileDepth, out += kTile * width) {
    const int64_t left = cols - k;
    const __mmask32 some = left < kTileDepth ? (1u << left) - 1u : ~0u;
    __m512i m[kTile];
    for (int r = 0; r < kTile; ++r)
      m[r] = r < rows ? _mm512_maskz_loadu_epi16(some, x + r * stride + k) : _mm512_setzero_si512();
    if (width == 1) {
      _mm512_storeu_si512(out, m[0]);
      continue;
    }
    if (width == 2) {
      const __m512i lo = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
      _mm512_storeu_si512(out, _mm512_permutex2var_epi32(m[0], lo, m[1]));
      _mm512_storeu_si512(out + kTile,
                          _mm512_permutex2var_epi32(m[0], _mm512_add_epi32(lo, _mm512_set1_epi32(8)), m[1]));
      continue;
    }
    transpose(m);
    for (int p = 0; p < kTile; ++p) _mm512_mask_storeu_epi32(out + p * width, columns, m[p]);
  }
}

// Adds 32 k of a tile of weights times RB tiles of x. stride, x_stride: bytes between rows.
template <int RB>
[[gnu::always_inline]] inline void multiply_tiles(const uint16_t* w, int64_t stride, const uint32_t* x0,
                                                  const uint32_t* x1, int64_t x_stride) {
  _tile_loadd(4, w, stride);
  _tile_loadd(6, x0, x_stride);
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (RB == 2) {
    _tile_loadd(7, x1, x_stride);
    _tile_dpbf16ps(1, 4, 7);
  }
}

// What a call's blocks share.
struct TileProduct {
  const MatmulArgs& a;
  int width;            // rows of x in a tile
  int64_t group_pairs;  // pairs of a packed group
  const uint32_t* packed;

  // Sums [n, width] of a tile to n columns of y from column `at`, rows of group `group`.
  void store(const float* sums, int n, int64_t at, int64_t group) const {
    const auto columns = static_cast<__mmask16>((1u << n) - 1u);
    const __m512i places = _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                              _mm512_set1_epi32(width));
    const int64_t left = a.rows - group * width;
    for (int r = 0; r < width && r < left; ++r) {
      const Vec row = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), columns, places, sums + r, 4);
      _mm512_mask_storeu_ps(a.y + (group * width + r) * a.y_stride + at, columns, row);
    }
  }

  // n columns, at most a tile of them, from column `at`, for RB groups of rows from `group`.
  template <int RB, bool Prefetch>
  void block(int n, int64_t at, int64_t group) const {
    const auto* w = static_cast<const uint16_t*>(a.w) + at * a.cols;
    const uint32_t* x0 = packed + group * group_pairs;
    const uint32_t* x1 = x0 + (RB - 1) * group_pairs;
    const int64_t stride = 2 * a.cols, x_stride = 4 * width, x_step = kTile * width;
    _tile_zero(0);
    _tile_zero(1);
    int64_t k = 0;
    for (; k + kTileDepth <= a.cols; k += kTileDepth, x0 += x_step, x1 += x_step) {
      if constexpr (Prefetch) {
        // A row ends where the row that follows it begins: past the end go on in the rows of the next block.
        const uint16_t* p = w + k + kAhead + (k + kAhead < a.cols ? 0 : (kTile - 1) * a.cols);
        for (int i = 0; i < kTile; ++i) prefetch(p + i * a.cols);
      }
      multiply_tiles<RB>(w + k, stride, x0, x1, x_stride);
    }
    if (k < a.cols) {  // through a copy, since a tile reads whole rows
      alignas(64) uint16_t rest[kTile * kTileDepth];
      const __mmask32 some = (1u << (a.cols - k)) - 1u;
      for (int i = 0; i < n; ++i)
        _mm512_store_si512(rest + i * kTileDepth, _mm512_maskz_loadu_epi16(some, w + i * a.cols + k));
      tiles_read_memory();
      multiply_tiles<RB>(rest, kTileBytes, x0, x1, x_stride);
    }
    alignas(64) float sums[kTile * kTile];
    _tile_stored(0, sums, x_stride);
    store(sums, n, at, group);
    if constexpr (RB == 2) {
      _tile_stored(1, sums, x_stride);
      store(sums, n, at, group + 1);
    }
  }

  // n columns for all rows; only the first groups meet cold weights.
  void columns(int n, int64_t at, int64_t groups) const {
    if (groups == 1) return block<1, true>(n, at, 0);
    block<2, true>(n, at, 0);
    int64_t group = 2;
    for (; group + 2 <= groups; group += 2) block<2, false>(n, at, group);
    if (group < groups) block<1, false>(n, at, group);
  }
};

// a.packed holds packed_size(a.rows, a.cols) numbers.
inline void matmul_tiles(const MatmulArgs& a) {
  const int64_t groups = (a.rows + kTile - 1) / kTile;
  const int width = groups == 1 ? static_cast<int>(a.rows) : kTile;
  const int64_t group_pairs = (a.cols + kTileDepth - 1) / kTileDepth * kTile * width;
  auto* packed = static_cast<uint32_t*>(a.packed);
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t left = a.rows - g * width;
    pack_group(static_cast<const uint16_t*>(a.x) + g * width * a.x_stride, a.x_stride,
               static_cast<int>(left < width ? left : width), a.cols, width, packed + g * group_pairs);
  }
  const TileProduct product{a, width, group_pairs, packed};
  int64_t n = a.n0;
  configure_tiles(kTile, width);
  for (; n + kTile <= a.n1; n += kTile) product.columns(kTile, n, groups);
  if (n < a.n1) {
    const auto rest = static_cast<int>(a.n1 - n);
    configure_tiles(rest, width);
    product.columns(rest, n, groups);
  }
  _tile_release();
}

}  // namespace nsrt::cpu::NSRT_ISA
