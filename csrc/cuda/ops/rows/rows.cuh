// One block a row; a thread takes every kRowThreads-th number, so that sums have a fixed order.
#pragma once

#include "cuda/device/pack.cuh"
#include "cuda/device/ptx.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/device/thread.cuh"
#include "cuda/ops/rows/rows.h"

namespace nsrt::cuda {

inline constexpr int kRowThreads = 256;
inline constexpr int kRowWarps = kRowThreads / 32;

// The sum over the block, for every thread. `parts` has room for one number a warp.
__device__ __forceinline__ float block_sum(float x, float* parts) {
  const float of_warp = warp_sum(x);
  if (lane_index() == 0) parts[warp_index()] = of_warp;
  __syncthreads();
  float sum = 0.0f;
#pragma unroll
  for (int w = 0; w < kRowWarps; ++w) sum += parts[w];
  return sum;
}

template <class A>
__global__ void __launch_bounds__(kRowThreads) begin_rows_kernel(const __grid_constant__ BeginRowsTask task) {
  NSRT_SHARED(parts, float[kRowWarps]);
  ptx::pdl_wait();
  ptx::pdl_launch_dependents();
  const std::int64_t row = std::int64_t{blockIdx.x} * task.d;
  float squares = 0.0f;
  for (int i = thread_index(); i < task.d; i += kRowThreads) {
    const float v = task.residual[row + i];
    squares += v * v;
    static_cast<A*>(task.x)[row + i] = rounded<A>(v * task.next_weight[i]);
  }
  const float sum = block_sum(squares, parts);
  if (thread_index() == 0) task.squares[blockIdx.x] = sum;
}

inline __global__ void __launch_bounds__(kRowThreads) take_hidden_kernel(const __grid_constant__ TakeHiddenTask task) {
  NSRT_SHARED(parts, float[kRowWarps]);
  ptx::pdl_wait();
  ptx::pdl_launch_dependents();
  const int r = static_cast<int>(blockIdx.x), sequence = task.keep[r];
  if (sequence < 0) return;
  float squares = 0.0f;
  const float* residual = task.residual + std::int64_t{r} * task.d;
  if (task.norm.squares)
    for (int i = thread_index(); i < task.norm.parts; i += kRowThreads)
      squares += task.norm.squares[r * task.norm.parts + i];
  else
    for (int i = thread_index(); i < task.d; i += kRowThreads) squares += residual[i] * residual[i];
  const float sum = block_sum(squares, parts);
  const float scale = rsqrtf(sum / static_cast<float>(task.norm.width) + task.norm.eps);
  float* hidden = task.hidden + std::int64_t{sequence} * task.d;
  for (int i = thread_index(); i < task.d; i += kRowThreads) hidden[i] = residual[i] * scale * task.weight[i];
}

template <class A>
__global__ void __launch_bounds__(kRowThreads) condition_rows_kernel(const __grid_constant__ ConditionTask task) {
  ptx::pdl_wait();
  ptx::pdl_launch_dependents();
  const std::int64_t row = std::int64_t{blockIdx.x} * task.d;
  const float* position = task.position ? task.position + std::int64_t{*task.token} * task.d : nullptr;
  for (int i = thread_index(); i < task.d; i += kRowThreads) {
    const float v = task.hidden[row + i] + (position ? position[i] : 0.0f);
    static_cast<A*>(task.x)[row + i] = rounded<A>(v);
  }
}

}  // namespace nsrt::cuda
