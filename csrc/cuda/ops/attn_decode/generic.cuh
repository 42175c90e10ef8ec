// A warp's share of attention by multiply-and-add: one position at a time, 8 dimensions of the head a lane.
#pragma once

#include "cuda/device/pack.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/device/thread.cuh"

namespace nsrt::cuda {

template <class T>
class GenericAttention {
 public:
  using Number = T;
  static constexpr int kHeads = 4;
  static constexpr int kBlock = 4;  // positions

  __device__ GenericAttention(const T* q, int heads, int d_head) : lane_(lane_index()), d_head_(d_head), heads_(heads) {
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
#pragma unroll
      for (int i = 0; i < 8; ++i) q_[h][i] = out_[h][i] = 0.0f;
      if (h < heads && 8 * lane_ < d_head) load8(q + h * d_head + 8 * lane_, q_[h]);
      max_[h] = -INFINITY;
      sum_[h] = 0.0f;
    }
  }

  __device__ void block(const T* k, const T* v, int first, int begin, int end) {
    for (int position = max(first, begin); position < min(first + kBlock, end); ++position) {
      float key[8] = {}, value[8] = {};
      if (8 * lane_ < d_head_) {
        load8(k + std::int64_t{position} * d_head_ + 8 * lane_, key);
        load8(v + std::int64_t{position} * d_head_ + 8 * lane_, value);
      }
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        if (h < heads_) add(h, key, value);
      }
    }
  }

  __device__ void store(float* max, float* sum, float* out, int heads) const {
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      if (h >= heads) continue;
      if (lane_ == 0) {
        max[h] = max_[h];
        sum[h] = sum_[h];
      }
      if (8 * lane_ < d_head_) {
#pragma unroll
        for (int i = 0; i < 8; ++i) out[h * d_head_ + 8 * lane_ + i] = out_[h][i];
      }
    }
  }

 private:
  __device__ void add(int h, const float (&key)[8], const float (&value)[8]) {
    float dot = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) dot = fmaf(q_[h][i], key[i], dot);
    const float score = warp_sum(dot), largest = fmaxf(max_[h], score);
    const float rescale = __expf(max_[h] - largest), weight = __expf(score - largest);
    sum_[h] = sum_[h] * rescale + weight;
    max_[h] = largest;
#pragma unroll
    for (int i = 0; i < 8; ++i) out_[h][i] = fmaf(weight, value[i], out_[h][i] * rescale);
  }

  const int lane_, d_head_, heads_;
  float q_[kHeads][8], out_[kHeads][8];
  float max_[kHeads], sum_[kHeads];
};

}  // namespace nsrt::cuda
