// What prefill does to its rows between the products, which a library computes (ops/gemm): RMSNorm; biases, rotation
// and append; the gate of the feed-forward network. Activations are bf16. Each is bound by the bytes of the rows.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/cost.h"
#include "cuda/ops/linear/linear.h"

namespace nsrt::cuda {

struct PrefillLaunch {
  bool overlaps = false;  // as in LinearLaunch
  cudaStream_t stream = nullptr;
};

// x = residual * rstd * weight
struct NormRowsTask {
  const float* residual = nullptr;  // [rows, d]
  const float* weight = nullptr;    // [d]
  void* x = nullptr;                // [rows, d]
  std::int32_t rows = 0, d = 0;     // d is a multiple of 8
  float eps = 0;
};

// q: rotated, scaled by 1 / sqrt(d_head) -> q; k: rotated -> cache; v -> cache; all of them with their biases. The
// rotation is that of linear()'s kQkv.
struct AppendRowsTask {
  const void* qkv = nullptr;         // [rows, h_q + 2 h_kv, d_head]: the queries, the keys, the values
  const float* q_bias = nullptr;     // [h_q, d_head], or null
  const float* k_bias = nullptr;     // [h_kv, d_head], or null
  const float* v_bias = nullptr;     // the same
  void* q = nullptr;                 // [rows, h_q, d_head]
  void* k_cache = nullptr;           // [sequences, h_kv, capacity, d_head]
  void* v_cache = nullptr;           // the same
  const float* cos = nullptr;        // [position, d_head / 2]
  const float* sin = nullptr;        // the same
  const RowPlace* places = nullptr;  // [rows]
  std::int32_t rows = 0, h_q = 0, h_kv = 0;
  std::int32_t d_head = 0;  // a multiple of 8
  std::int64_t capacity = 0;
};

// y = silu(gate + gate_bias) * (up + up_bias)
struct GateRowsTask {
  const void* gate_up = nullptr;     // [rows, 2, d]
  const float* gate_bias = nullptr;  // [d], or null
  const float* up_bias = nullptr;    // [d], or null
  void* y = nullptr;                 // [rows, d]
  std::int32_t rows = 0, d = 0;      // d is a multiple of 8
};

// They throw InvalidRequest for shapes and addresses that the kernels do not take, Error where the launch fails.
void norm_rows(const NormRowsTask& task, const PrefillLaunch& launch);
void append_rows(const AppendRowsTask& task, const PrefillLaunch& launch);
void gate_rows(const GateRowsTask& task, const PrefillLaunch& launch);

Cost cost(const NormRowsTask& task);
Cost cost(const AppendRowsTask& task);
Cost cost(const GateRowsTask& task);

}  // namespace nsrt::cuda
