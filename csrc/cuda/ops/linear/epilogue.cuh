// What becomes of a pair of sums: row `r` of x times the weight rows `n`.
#pragma once

#include "cuda/device/pack.cuh"
#include "cuda/ops/linear/tiles.cuh"

namespace nsrt::cuda {

template <Epilogue kKind, class Activation>
struct Finish {
  const LinearTask& task;
  Tile tile;

  __device__ const Segment& segment() const { return task.segments[tile.segment]; }

  // Returns the squares of what it wrote (kResidual), for the next norm.
  __device__ float operator()(RowPair n, int r, float low, float high) const {
    const Segment& s = segment();
    if (n.low >= 0 && s.bias) low += s.bias[n.low];
    const float* high_bias = s.kind == TileKind::kGated ? s.bias2 : s.bias;
    if (n.high >= 0 && high_bias) high += high_bias[n.high];
    if constexpr (kKind == Epilogue::kGated) {
      if (n.low >= 0) store_activation(n.low, r, silu(low) * high);
    } else if constexpr (kKind == Epilogue::kQkv) {
      qkv(n, r, low, high);
    } else {
      float squares = 0.0f;
      if (n.low >= 0) squares += single(n.low, r, low);
      if (n.high >= 0) squares += single(n.high, r, high);
      return squares;
    }
    return 0.0f;
  }

  __device__ float single(int n, int r, float v) const {
    if constexpr (kKind == Epilogue::kResidual) {
      const std::int64_t at = static_cast<std::int64_t>(r) * segment().n + n;
      v += task.residual[at];
      task.residual[at] = v;
      store_activation(n, r, v * task.next_weight[n]);
      return v * v;
    } else if constexpr (kKind == Epilogue::kTimes) {
#pragma unroll 1  // stands in the code once for each pair already: unrolled, it spills
      for (int s = 0; s < task.steps; ++s) {
        const float time = task.times[static_cast<std::int64_t>(s) * segment().n + n];
        store_activation(n, s * task.rows + r, silu(v + time));
      }
    } else {
      if (task.silu) v = silu(v);
      if constexpr (kKind == Epilogue::kActivate) {
        store_activation(n, r, v);
      } else {
        if (task.residual) v += task.residual[static_cast<std::int64_t>(r) * segment().n + n];
        static_cast<float*>(task.y)[r * task.y_stride + n] = v;
      }
    }
    return 0.0f;
  }

  __device__ void store_activation(int n, int r, float v) const {
    static_cast<Activation*>(task.y)[r * task.y_stride + n] = rounded<Activation>(v);
  }

  // Half-split rotary embedding of rows i and i + d_head / 2 of a head.
  __device__ void qkv(RowPair n, int r, float low, float high) const {
    const RowPlace place = task.places[r];
    const int half = task.d_head / 2;
    if (tile.segment == 2) {
      auto* cache = static_cast<Activation*>(task.v_cache);
      if (n.low >= 0) cache[cache_offset(place, n.low)] = rounded<Activation>(low);
      if (n.high >= 0) cache[cache_offset(place, n.high)] = rounded<Activation>(high);
      return;
    }
    if (n.low < 0) return;
    const std::int64_t at = static_cast<std::int64_t>(place.position) * half + n.low % task.d_head;
    const float cos = task.cos[at], sin = task.sin[at];
    const float turned_low = low * cos - high * sin, turned_high = high * cos + low * sin;
    if (tile.segment == 0) {
      const float scale = rsqrtf(static_cast<float>(task.d_head));
      store_activation(n.low, r, turned_low * scale);
      store_activation(n.high, r, turned_high * scale);
    } else {
      auto* cache = static_cast<Activation*>(task.k_cache);
      cache[cache_offset(place, n.low)] = rounded<Activation>(turned_low);
      cache[cache_offset(place, n.high)] = rounded<Activation>(turned_high);
    }
  }

  __device__ std::int64_t cache_offset(RowPlace place, int n) const {
    const std::int64_t head = static_cast<std::int64_t>(place.sequence) * task.h_kv + n / task.d_head;
    return (head * task.capacity + place.position) * task.d_head + n % task.d_head;
  }
};

}  // namespace nsrt::cuda
