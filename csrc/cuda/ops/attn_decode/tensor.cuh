// A warp's share of attention on tensor cores: blocks of 16 positions, up to 16 query heads of one KV head.
// Keys are the column operand of q k^T and values that of p v, both taken from memory in pieces of 16 bytes: the order
// of the head's dimensions is permuted alike in q and k, and known in y.
#pragma once

#include "cuda/device/pack.cuh"
#include "cuda/device/ptx.cuh"
#include "cuda/device/thread.cuh"

namespace nsrt::cuda {

template <int kDims>
class TensorAttention {
  static_assert(kDims % 64 == 0);

 public:
  using Number = bf16;
  static constexpr int kHeads = 16;
  static constexpr int kBlock = 16;  // positions

  // q [heads, kDims] of this KV head.
  __device__ TensorAttention(const bf16* q, int heads, int) : lane_(lane_index()) {
    const int g = lane_ / 4, t = lane_ % 4;
#pragma unroll
    for (int c = 0; c < kDims / 32; ++c) {
      q_[c][0] = g < heads ? load(q + g * kDims + 32 * c + 8 * t) : zeros();
      q_[c][1] = g + 8 < heads ? load(q + (g + 8) * kDims + 32 * c + 8 * t) : zeros();
    }
    max_[0] = max_[1] = -INFINITY;
    sum_[0] = sum_[1] = 0.0f;
#pragma unroll
    for (int j = 0; j < kDims / 8; ++j) out_[j][0] = out_[j][1] = out_[j][2] = out_[j][3] = 0.0f;
  }

  // Positions first..first+15 of k and v [positions, kDims]; those from `end` on, or before `begin`, do not count.
  __device__ void block(const bf16* k, const bf16* v, int first, int begin, int end) {
    // Both are on their way before either is needed.
    uint4 keys[2][kDims / 32], values[kDims / 64][4];
    load_keys(k, first, end, keys);
    load_values(v, first, end, values);
    float scores[2][4];
    const int t = lane_ % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float (&s)[4] = scores[half];
      s[0] = s[1] = s[2] = s[3] = 0.0f;
#pragma unroll
      for (int c = 0; c < kDims / 32; ++c) {
        const uint4& key = keys[half][c];
        multiply(s, q_[c][0].x, q_[c][1].x, q_[c][0].y, q_[c][1].y, key.x, key.y);
        multiply(s, q_[c][0].z, q_[c][1].z, q_[c][0].w, q_[c][1].w, key.z, key.w);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = first + 8 * half + 2 * t + i % 2;
        if (at < begin || at >= end) s[i] = -INFINITY;
      }
    }
    soften(scores);
    add_values(values, scores);
  }

  // max, sum [heads] and out [heads, kDims], unnormalized.
  __device__ void store(float* max, float* sum, float* out, int heads) const {
    const int g = lane_ / 4, t = lane_ % 4;
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      const int head = g + 8 * upper;
      if (head >= heads) continue;
      if (t == 0) {
        max[head] = max_[upper];
        sum[head] = sum_[upper];
      }
#pragma unroll
      for (int j = 0; j < kDims / 8; ++j) {
        // Column n of tile j is dimension 64 (j / 8) + 8 n + j % 8.
        float* row = out + head * kDims + j / 8 * 64 + j % 8;
        row[8 * (2 * t)] = out_[j][2 * upper];
        row[8 * (2 * t + 1)] = out_[j][2 * upper + 1];
      }
    }
  }

 private:
  __device__ static uint4 load(const bf16* p) { return *reinterpret_cast<const uint4*>(p); }
  __device__ static uint4 zeros() { return make_uint4(0, 0, 0, 0); }

  __device__ static void multiply(float (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2, std::uint32_t a3,
                                  std::uint32_t b0, std::uint32_t b1) {
    const std::uint32_t a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
    ptx::mma_m16n8k16_bf16(d, a, b);
  }

  __device__ void load_keys(const bf16* k, int first, int end, uint4 (&keys)[2][kDims / 32]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int position = first + 8 * half + lane_ / 4;
#pragma unroll
      for (int c = 0; c < kDims / 32; ++c)
        keys[half][c] = position < end ? load(k + std::int64_t{position} * kDims + 32 * c + 8 * (lane_ % 4)) : zeros();
    }
  }

  // Of positions 2t, 2t + 1, 2t + 8, 2t + 9.
  __device__ void load_values(const bf16* v, int first, int end, uint4 (&values)[kDims / 64][4]) const {
#pragma unroll
    for (int part = 0; part < kDims / 64; ++part) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int position = first + 2 * (lane_ % 4) + i % 2 + i / 2 * 8;
        values[part][i] =
            position < end ? load(v + std::int64_t{position} * kDims + 64 * part + 8 * (lane_ / 4)) : zeros();
      }
    }
  }

  // Scores to weights, relative to the largest so far, which earlier sums are rescaled to.
  __device__ void soften(float (&scores)[2][4]) {
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      float largest = max_[upper];
#pragma unroll
      for (int half = 0; half < 2; ++half)
        largest = fmaxf(largest, fmaxf(scores[half][2 * upper], scores[half][2 * upper + 1]));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
      const float base = largest == -INFINITY ? 0.0f : largest;  // nothing seen yet: all weights are zero
      const float rescale = __expf(max_[upper] - base);
      float added = 0.0f;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& s = scores[half][2 * upper + i];
          s = __expf(s - base);
          added += s;
        }
      }
      added += __shfl_xor_sync(0xffffffffu, added, 1);
      added += __shfl_xor_sync(0xffffffffu, added, 2);
      sum_[upper] = sum_[upper] * rescale + added;
      max_[upper] = largest;
#pragma unroll
      for (int j = 0; j < kDims / 8; ++j) {
        out_[j][2 * upper] *= rescale;
        out_[j][2 * upper + 1] *= rescale;
      }
    }
  }

  __device__ void add_values(const uint4 (&values)[kDims / 64][4], const float (&weights)[2][4]) {
    std::uint32_t p[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) p[i] = pack_bf16(weights[i / 2][i % 2 * 2], weights[i / 2][i % 2 * 2 + 1]);
#pragma unroll
    for (int part = 0; part < kDims / 64; ++part) {
      const uint4(&rows)[4] = values[part];
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const std::uint32_t select = j % 2 == 0 ? 0x5410 : 0x7632;  // the lower halves of both words, or the upper
        const std::uint32_t b[2] = {__byte_perm(word(rows[0], j / 2), word(rows[1], j / 2), select),
                                    __byte_perm(word(rows[2], j / 2), word(rows[3], j / 2), select)};
        ptx::mma_m16n8k16_bf16(out_[part * 8 + j], p, b);
      }
    }
  }

  __device__ static std::uint32_t word(const uint4& x, int i) {
    return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
  }

  const int lane_;
  uint4 q_[kDims / 32][2];  // of heads g and g + 8
  float max_[2], sum_[2];   // of heads g and g + 8
  float out_[kDims / 8][4];
};

}  // namespace nsrt::cuda
