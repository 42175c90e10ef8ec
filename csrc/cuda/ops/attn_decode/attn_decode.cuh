// Bound by the cache's bytes, and at short sequences by latency. Grid: [splits, kv heads x blocks of query heads,
// rows]; block: kAttnWarps warps, which take blocks of positions in turn and meet in shared memory.
#pragma once

#include "cuda/device/platform.cuh"
#include "cuda/ops/attn_decode/attn_decode.h"
#include "cuda/ops/attn_decode/generic.cuh"
#include "cuda/ops/attn_decode/tensor.cuh"

namespace nsrt::cuda {

inline constexpr int kAttnWarps = 4;

// Unnormalized outputs of some positions: max, sum [heads]; out [heads, d_head].
struct AttnPart {
  float* max;
  float* sum;
  float* out;

  __host__ __device__ static std::size_t floats(int heads, int d_head) {
    return static_cast<std::size_t>(heads) * static_cast<std::size_t>(d_head + 2);
  }
  __device__ static AttnPart at(float* memory, int index, int heads, int d_head) {
    float* base = memory + static_cast<std::int64_t>(index) * static_cast<std::int64_t>(floats(heads, d_head));
    return {base, base + heads, base + 2 * heads};
  }
};

// Combines `count` parts, in order, element by element; f(i, head, out, max, sum) gets the result.
template <class F>
__device__ __forceinline__ void combine_parts(float* memory, int count, int heads, int d_head, int stride_heads,
                                              F&& f) {
  for (int i = thread_index(); i < heads * d_head; i += static_cast<int>(blockDim.x)) {
    const int head = i / d_head;
    float largest = -INFINITY;
    for (int p = 0; p < count; ++p) largest = fmaxf(largest, AttnPart::at(memory, p, stride_heads, d_head).max[head]);
    float out = 0.0f, sum = 0.0f;
    for (int p = 0; p < count; ++p) {
      const AttnPart part = AttnPart::at(memory, p, stride_heads, d_head);
      if (part.max[head] == -INFINITY) continue;  // saw no position
      const float weight = __expf(part.max[head] - largest);
      out = fmaf(weight, part.out[i], out);
      sum = fmaf(weight, part.sum[head], sum);
    }
    f(i, head, out, largest, sum);
  }
}

template <class Policy>
__global__ void __launch_bounds__(kAttnWarps * 32)
    attn_decode_kernel(const __grid_constant__ AttnDecodeTask task, const __grid_constant__ AttnWorkspace workspace) {
  using T = typename Policy::Number;
  NSRT_DYNAMIC_SHARED(raw);
  NSRT_SHARED(is_last, bool);
  SharedCarver carver(raw);
  auto* memory = carver.take<float>(kAttnWarps * AttnPart::floats(Policy::kHeads, task.d_head));
  ptx::pdl_wait();
  ptx::pdl_launch_dependents();

  const int group = task.h_q / task.h_kv, head_blocks = (group + Policy::kHeads - 1) / Policy::kHeads;
  const int row = static_cast<int>(blockIdx.z), kv_head = static_cast<int>(blockIdx.y) / head_blocks;
  const int first_head = static_cast<int>(blockIdx.y) % head_blocks * Policy::kHeads;
  const int heads = min(Policy::kHeads, group - first_head), d = task.d_head;
  const RowPlace place = task.places[row];
  const int begin = task.starts ? task.starts[row] : 0, end = place.position + 1;

  // This split's positions, in whole blocks.
  const int blocks = (end - begin + Policy::kBlock - 1) / Policy::kBlock, splits = static_cast<int>(gridDim.x);
  const int split = static_cast<int>(blockIdx.x), warp = warp_index();
  const int first_block = static_cast<int>(std::int64_t{blocks} * split / splits);
  const int last_block = static_cast<int>(std::int64_t{blocks} * (split + 1) / splits);

  const std::int64_t query = (std::int64_t{row} * task.h_q + kv_head * group + first_head) * d;
  const std::int64_t cache = (std::int64_t{place.sequence} * task.h_kv + kv_head) * task.capacity * d;
  Policy policy(static_cast<const T*>(task.q) + query, heads, d);
  for (int b = first_block + warp; b < last_block; b += kAttnWarps)
    policy.block(static_cast<const T*>(task.k) + cache, static_cast<const T*>(task.v) + cache,
                 begin + b * Policy::kBlock, begin, end);
  const AttnPart mine = AttnPart::at(memory, warp, Policy::kHeads, d);
  policy.store(mine.max, mine.sum, mine.out, heads);
  __syncthreads();

  T* y = static_cast<T*>(task.y) + query;
  const auto finish = [&](int i, int, float out, float, float sum) {
    y[i] = rounded<T>(begin < end ? out / sum : 0.0f);  // a sum that is no number must show
  };
  if (splits == 1) {
    combine_parts(memory, kAttnWarps, heads, d, Policy::kHeads, finish);
    return;
  }
  const int unit = row * static_cast<int>(gridDim.y) + static_cast<int>(blockIdx.y);
  float* parts =
      workspace.partials + std::int64_t{unit} * splits * static_cast<std::int64_t>(AttnPart::floats(Policy::kHeads, d));
  const AttnPart ours = AttnPart::at(parts, split, Policy::kHeads, d);
  combine_parts(memory, kAttnWarps, heads, d, Policy::kHeads,
                [&](int i, int head, float out, float largest, float sum) {
                  ours.out[i] = out;
                  if (i % d == 0) {
                    ours.max[head] = largest;
                    ours.sum[head] = sum;
                  }
                });
  __syncthreads();
  if (threadIdx.x == 0) {
    is_last = ptx::add_acq_rel(workspace.tickets + unit, 1u) + 1 == static_cast<std::uint32_t>(splits);
    if (is_last) workspace.tickets[unit] = 0;  // for the next launch
  }
  __syncthreads();
  if (is_last) combine_parts(parts, splits, heads, d, Policy::kHeads, finish);
}

}  // namespace nsrt::cuda
