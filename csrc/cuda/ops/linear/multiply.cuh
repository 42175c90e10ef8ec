// The arithmetic of one step, 16 weight rows by 32 columns: lane (g, t) = (lane / 4, lane % 4) holds columns 8t..8t+7
// of rows low g and high g. A policy's lane keeps kPairs sums of row pair g; pair j belongs to row `row(j)` of x.
//
// A policy says how many steps' weights are under way. 48 to 96 KB of them keep a multiprocessor's share of the
// bandwidth busy however late memory answers; kFewStages are for GPUs whose blocks have no room for that (99 KB in all
// on compute capability 8.6, 8.9 and 12.0), where 16 to 64 KB must do.
#pragma once

#include "cuda/device/pack.cuh"
#include "cuda/device/ptx.cuh"

namespace nsrt::cuda {

// mma.sync m16n8k16: weights are the 16-row operand, rows of x the columns, kBlocks times 8 of them. Any order of k
// that both operands share gives the same sums, so each lane takes 16 contiguous bytes of both: no shuffle, no
// transpose.
template <int kBlocks>
struct TensorMultiply {
  using Weight = bf16;
  using Activation = bf16;
  static constexpr int kRows = 8 * kBlocks;
  static constexpr int kPairs = 2 * kBlocks;
  static constexpr int kStages = kBlocks <= 2 ? 12 : 6;
  static constexpr int kFewStages = kBlocks <= 2 ? 4 : kBlocks <= 4 ? 6 : 2;  // the sums take the rest
  static constexpr int kBlocksOfSm = kBlocks <= 4 ? 2 : 1;                    // by registers
  static constexpr int kAhead = kBlocks <= 2 ? 4 : 2;  // steps whose x is on its way: a load takes longer than a step

  struct Operand {
    uint4 x[kBlocks];
  };

  float sums[kBlocks][4];

  __device__ void clear() {
#pragma unroll
    for (int n = 0; n < kBlocks; ++n) sums[n][0] = sums[n][1] = sums[n][2] = sums[n][3] = 0.0f;
  }

  __device__ static int row(int j, int lane) { return j / 2 * 8 + lane % 4 * 2 + j % 2; }

  // This lane's part of x at `column`; zeros beyond its ends.
  __device__ static Operand load(const bf16* x, int rows, int k, int column, int lane) {
    Operand operand;
#pragma unroll
    for (int n = 0; n < kBlocks; ++n) {
      const int r = 8 * n + lane / 4;
      operand.x[n] = make_uint4(0, 0, 0, 0);
      if (r < rows && column < k)
        operand.x[n] = *reinterpret_cast<const uint4*>(x + static_cast<std::int64_t>(r) * k + column);
    }
    return operand;
  }

  __device__ void add(const bf16* low, const bf16* high, const Operand& operand) {
    const uint4 a = *reinterpret_cast<const uint4*>(low), b = *reinterpret_cast<const uint4*>(high);
    const std::uint32_t first[4] = {a.x, b.x, a.y, b.y}, second[4] = {a.z, b.z, a.w, b.w};
#pragma unroll
    for (int n = 0; n < kBlocks; ++n) {
      const uint4& x = operand.x[n];
      const std::uint32_t x0[2] = {x.x, x.y}, x1[2] = {x.z, x.w};
      ptx::mma_m16n8k16_bf16(sums[n], first, x0);
      ptx::mma_m16n8k16_bf16(sums[n], second, x1);
    }
  }

  __device__ void finish(float (&low)[kPairs], float (&high)[kPairs], int) const {
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      low[j] = sums[j / 2][j % 2];
      high[j] = sums[j / 2][j % 2 + 2];
    }
  }
};

// Multiply and add, for any dtypes; the four lanes on a row meet in finish().
template <class W, class X, int kMaxRows>
struct FmaMultiply {
  using Weight = W;
  using Activation = X;
  static constexpr int kRows = kMaxRows;
  static constexpr int kPairs = (kMaxRows + 3) / 4;
  static constexpr int kStages = sizeof(W) == 2 ? 8 : 4, kFewStages = kStages;
  static constexpr int kBlocksOfSm = kMaxRows <= 4 ? 2 : 1;  // by registers
  static constexpr int kAhead = 1;                           // x is read where it is multiplied

  struct Operand {
    const X* x;
    int rows, k, column;
  };

  float low_sums[kMaxRows], high_sums[kMaxRows];

  __device__ void clear() {
#pragma unroll
    for (int r = 0; r < kMaxRows; ++r) low_sums[r] = high_sums[r] = 0.0f;
  }

  __device__ static int row(int j, int lane) { return 4 * j + lane % 4; }

  __device__ static Operand load(const X* x, int rows, int k, int column, int) { return {x, rows, k, column}; }

  __device__ void add(const W* low, const W* high, const Operand& operand) {
    if (operand.column >= operand.k) return;
    float a[8], b[8], x[8];
    load8(low, a);
    load8(high, b);
#pragma unroll
    for (int r = 0; r < kMaxRows; ++r) {
      if (r < operand.rows) {
        load8(operand.x + static_cast<std::int64_t>(r) * operand.k + operand.column, x);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          low_sums[r] = fmaf(a[i], x[i], low_sums[r]);
          high_sums[r] = fmaf(b[i], x[i], high_sums[r]);
        }
      }
    }
  }

  __device__ void finish(float (&low)[kPairs], float (&high)[kPairs], int lane) const {
#pragma unroll
    for (int j = 0; j < kPairs; ++j) low[j] = high[j] = 0.0f;
#pragma unroll
    for (int r = 0; r < kMaxRows; ++r) {
      const float a = quad_sum(low_sums[r]), b = quad_sum(high_sums[r]);
      if (lane % 4 == r % 4) {
        low[r / 4] = a;
        high[r / 4] = b;
      }
    }
  }

  __device__ static float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
  }
};

}  // namespace nsrt::cuda
