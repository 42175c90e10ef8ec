// Grid: a block a row; a thread takes every kRowThreads-th piece of the row, 16 bytes of bf16 or, where two halves of a
// head turn together, 8 of each.
#pragma once

#include "cuda/device/pack.cuh"
#include "cuda/device/ptx.cuh"
#include "cuda/device/thread.cuh"
#include "cuda/ops/prefill/prefill.h"
#include "cuda/ops/rows/rows.cuh"

namespace nsrt::cuda {

__device__ __forceinline__ void load_biased4(const bf16* p, const float* bias, float (&x)[4]) {
  const uint2 raw = *reinterpret_cast<const uint2*>(p);
  const float4 b = bias ? *reinterpret_cast<const float4*>(bias) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  x[0] = low_float(raw.x) + b.x, x[1] = high_float(raw.x) + b.y;
  x[2] = low_float(raw.y) + b.z, x[3] = high_float(raw.y) + b.w;
}

__device__ __forceinline__ void store8(bf16* p, const float (&x)[8]) {
  *reinterpret_cast<uint4*>(p) =
      make_uint4(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]), pack_bf16(x[4], x[5]), pack_bf16(x[6], x[7]));
}

inline __global__ void __launch_bounds__(kRowThreads) norm_rows_kernel(const __grid_constant__ NormRowsTask task) {
  NSRT_SHARED(parts, float[kRowWarps]);
  ptx::pdl_wait();
  ptx::pdl_launch_dependents();
  const std::int64_t row = std::int64_t{blockIdx.x} * task.d;
  float squares = 0.0f;
  for (int i = 8 * thread_index(); i < task.d; i += 8 * kRowThreads) {
    float x[8];
    load8(task.residual + row + i, x);
#pragma unroll
    for (int j = 0; j < 8; ++j) squares += x[j] * x[j];
  }
  const float scale = rsqrtf(block_sum(squares, parts) / static_cast<float>(task.d) + task.eps);
  for (int i = 8 * thread_index(); i < task.d; i += 8 * kRowThreads) {
    float x[8], weight[8];
    load8(task.residual + row + i, x);
    load8(task.weight + i, weight);
#pragma unroll
    for (int j = 0; j < 8; ++j) x[j] *= scale * weight[j];
    store8(static_cast<bf16*>(task.x) + row + i, x);
  }
}

// Dimensions i..i+3 of a head, and those half a head further on.
__device__ __forceinline__ void rotate4(const bf16* from, const float* bias, bf16* to, const float* cos,
                                        const float* sin, int half, float scale) {
  float low[4], high[4];
  load_biased4(from, bias, low);
  load_biased4(from + half, bias ? bias + half : nullptr, high);
  const float4 c = *reinterpret_cast<const float4*>(cos), s = *reinterpret_cast<const float4*>(sin);
  const float cosines[4] = {c.x, c.y, c.z, c.w}, sines[4] = {s.x, s.y, s.z, s.w};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float turned = low[j] * cosines[j] - high[j] * sines[j];
    high[j] = (high[j] * cosines[j] + low[j] * sines[j]) * scale;
    low[j] = turned * scale;
  }
  store4(to, low);
  store4(to + half, high);
}

inline __global__ void __launch_bounds__(kRowThreads) append_rows_kernel(const __grid_constant__ AppendRowsTask task) {
  ptx::pdl_wait();
  ptx::pdl_launch_dependents();
  const int r = static_cast<int>(blockIdx.x), d = task.d_head, half = d / 2, of_head = half / 4;
  const RowPlace place = task.places[r];
  const bf16* qkv = static_cast<const bf16*>(task.qkv) + std::int64_t{r} * (task.h_q + 2 * task.h_kv) * d;
  const auto cache_row = [&](void* cache, int head) {
    const std::int64_t of_sequence = std::int64_t{place.sequence} * task.h_kv + head;
    return static_cast<bf16*>(cache) + (of_sequence * task.capacity + place.position) * d;
  };
  const float scale = rsqrtf(static_cast<float>(d));
  for (int piece = thread_index(); piece < (task.h_q + task.h_kv) * of_head; piece += kRowThreads) {
    const int head = piece / of_head, i = piece % of_head * 4, key = head - task.h_q;
    const std::int64_t angle = std::int64_t{place.position} * half + i;
    const float* bias = key < 0 ? task.q_bias : task.k_bias;
    bf16* to =
        key < 0 ? static_cast<bf16*>(task.q) + (std::int64_t{r} * task.h_q + head) * d : cache_row(task.k_cache, key);
    rotate4(qkv + head * d + i, bias ? bias + (key < 0 ? head : key) * d + i : nullptr, to + i, task.cos + angle,
            task.sin + angle, half, key < 0 ? scale : 1.0f);
  }
  for (int piece = thread_index(); piece < task.h_kv * d / 4; piece += kRowThreads) {
    const int head = piece * 4 / d, i = piece * 4 % d;
    float x[4];
    load_biased4(qkv + (task.h_q + task.h_kv + head) * d + i, task.v_bias ? task.v_bias + head * d + i : nullptr, x);
    store4(cache_row(task.v_cache, head) + i, x);
  }
}

inline __global__ void __launch_bounds__(kRowThreads) gate_rows_kernel(const __grid_constant__ GateRowsTask task) {
  ptx::pdl_wait();
  ptx::pdl_launch_dependents();
  const std::int64_t row = std::int64_t{blockIdx.x} * task.d;
  const bf16* gates = static_cast<const bf16*>(task.gate_up) + 2 * row;
  const auto add = [](float (&x)[8], const float* bias) {
    if (bias == nullptr) return;
    float b[8];
    load8(bias, b);
#pragma unroll
    for (int j = 0; j < 8; ++j) x[j] += b[j];
  };
  for (int i = 8 * thread_index(); i < task.d; i += 8 * kRowThreads) {
    float gate[8], up[8];
    load8(gates + i, gate);
    load8(gates + task.d + i, up);
    add(gate, task.gate_bias ? task.gate_bias + i : nullptr);
    add(up, task.up_bias ? task.up_bias + i : nullptr);
#pragma unroll
    for (int j = 0; j < 8; ++j) gate[j] = silu(gate[j]) * up[j];
    store8(static_cast<bf16*>(task.y) + row + i, gate);
  }
}

}  // namespace nsrt::cuda
