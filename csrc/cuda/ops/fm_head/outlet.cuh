// The finished token's way back into the backbone: image_in_projector, whose output begins the next residual stream.
#pragma once

#include "cuda/ops/fm_head/memory.cuh"
#include "cuda/ops/fm_head/product.cuh"

namespace nsrt::cuda {

// This block's `rows` of image_in; the token of every image is in shared.x, and all threads have seen it.
template <int kRows, class W, class A>
__device__ __forceinline__ void feed_backbone(const FmHeadTask& t, const WeightRows<W>& rows,
                                              const FmShared<W, A>& shared) {
  const FmOutlet& outlet = t.outlet;
  const int warp = warp_index(), lane = lane_index();
  const int all_rows = t.branches * t.images;
  for (int i = thread_index(); i < t.images * t.d_tok; i += kFmThreads) shared.operand[i] = rounded<A>(shared.x[i]);
  FirstRow<W> first;
  first.fetch(rows, warp, lane);
  struct Rest {
    float bias = 0, next = 0;
  };
  const auto prepare = [&](int n) { return Rest{rows.bias ? rows.bias[n] : 0.0f, outlet.next_weight[n]}; };
  const Rest first_rest = warp < rows.count ? prepare(rows.begin + warp) : Rest{};
  __syncthreads();
  float squares[kRows] = {};
  const auto send = [&](int n, const Rest& rest, float (&sums)[kRows]) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (i >= t.images) continue;
      const float v = sums[i] + rest.bias;
      squares[i] += v * v;
      // Every branch of the image gets it.
      for (int r = i + lane * t.images; r < all_rows; r += 32 * t.images) {
        const std::int64_t at = static_cast<std::int64_t>(r) * outlet.d_model + n;
        outlet.residual[at] = v;
        static_cast<A*>(outlet.x)[at] = rounded<A>(v * rest.next);
      }
    }
  };
  multiply_rows<kRows>(rows, first, first_rest, shared.operand, t.images, warp, lane, prepare, send);
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kRows; ++i)
    if (i < t.images && lane == 0) shared.partials[warp * t.images + i] = squares[i];
  __syncthreads();
  for (int r = thread_index(); r < all_rows; r += kFmThreads) {
    float sum = 0.0f;
    for (int w = 0; w < kFmWarps; ++w) sum += shared.partials[w * t.images + r % t.images];
    outlet.squares[r * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x)] = sum;
  }
}

}  // namespace nsrt::cuda
