// One block's rows of a product: a warp for each row of weights, all rows of x at once. Weights come from shared memory
// where they stay between steps, else from L2 or memory; a warp's first row is under way before its x is known.
#pragma once

#include "cuda/device/pack.cuh"
#include "cuda/device/ptx.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/device/thread.cuh"
#include "cuda/ops/fm_head/fm_head.h"

namespace nsrt::cuda {

inline constexpr int kFmWarps = 12;
inline constexpr int kFmThreads = kFmWarps * 32;

// values[index], without the local memory that an index known only at run time would put them into.
template <int kCount>
__device__ __forceinline__ float pick(const float (&values)[kCount], int index) {
  float value = values[0];
#pragma unroll
  for (int i = 1; i < kCount; ++i) value = index == i ? values[i] : value;
  return value;
}

// Eight numbers as they lie in memory.
template <class T>
struct Raw8 {
  uint4 words[sizeof(T) / 2];

  __device__ void unpack(float (&x)[8]) const {
    T numbers[8];
    memcpy(numbers, words, sizeof numbers);
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = widened(numbers[i]);
  }
};

// A block's rows [begin, begin + count) of a matrix [n, k].
template <class W>
struct WeightRows {
  const W* global = nullptr;  // row `begin`
  const W* shared = nullptr;  // the same, where it is resident
  const float* bias = nullptr;
  int begin = 0, count = 0, k = 0;
  std::uint64_t policy = 0;  // of L2, or 0

  __device__ Raw8<W> load(int row, int column) const {
    Raw8<W> raw;
    const std::int64_t at = static_cast<std::int64_t>(row) * k + column;
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(W) / 2); ++i) {
      constexpr int kStep = 16 / sizeof(W);
      if (shared)
        raw.words[i] = *reinterpret_cast<const uint4*>(shared + at + i * kStep);
      else if (policy)
        raw.words[i] = ptx::load_weights(global + at + i * kStep, policy);
      else
        raw.words[i] = ptx::load_weights(global + at + i * kStep);
    }
    return raw;
  }
};

// The beginning of the warp's first row.
template <class W>
struct FirstRow {
  static constexpr int kChunks = sizeof(W) == 2 ? 6 : 3;  // of 256 columns
  Raw8<W> chunks[kChunks];

  // Zeros where there is nothing: registers that one path leaves alone would be taken all around the loop over steps.
  __device__ void fetch(const WeightRows<W>& rows, int warp, int lane) {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int column = (c * 32 + lane) * 8;
      chunks[c] = warp < rows.count && column < rows.k ? rows.load(warp, column) : Raw8<W>{};
    }
  }
};

// send(n, rest, sums) for each of the warp's rows n, with the products with all rows of x [x_rows, k] in every lane.
// `rest` is what else the row needs, prepare(n): loaded before it is multiplied, for the warp's first row by the
// caller.
template <int kRows, class W, class X, class Rest, class Prepare, class Send>
__device__ __forceinline__ void multiply_rows(const WeightRows<W>& rows, const FirstRow<W>& first,
                                              const Rest& first_rest, const X* x, int x_rows, int warp, int lane,
                                              Prepare&& prepare, Send&& send) {
  for (int row = warp; row < rows.count; row += kFmWarps) {
    const Rest rest = row == warp ? first_rest : prepare(rows.begin + row);
    float sums[kRows] = {};
    const auto add = [&](const Raw8<W>& raw, int column) {
      float w[8], values[8];
      raw.unpack(w);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (r < x_rows) {
          load8(x + r * rows.k + column, values);
#pragma unroll
          for (int i = 0; i < 8; ++i) sums[r] = fmaf(w[i], values[i], sums[r]);
        }
      }
    };
    int begin = lane * 8;
    if (row == warp) {
#pragma unroll
      for (int c = 0; c < FirstRow<W>::kChunks; ++c) {
        if (begin < rows.k) add(first.chunks[c], begin);
        begin += 256;
      }
    }
    for (int column = begin; column < rows.k; column += 256) add(rows.load(row, column), column);
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[r] = warp_sum(sums[r]);
    send(rows.begin + row, rest, sums);
  }
}

}  // namespace nsrt::cuda
