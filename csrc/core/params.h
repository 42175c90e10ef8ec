// One POD per op: every pointer with its shape and dtype. The CPU and CUDA ops of the same name take the same struct.
// Activations are float32, row-major, with a row stride (in elements) where rows need not be adjacent.
#pragma once

#include <cstdint>

#include "nextstep_rt/tensor.h"

namespace nsrt {

// A weight matrix [rows, cols], row-major and dense.
struct Matrix {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;

  std::int64_t nbytes() const { return rows * cols * static_cast<std::int64_t>(item_size(dtype)); }
};

// y[b, n] = act(sum_k x[b, k] * w[n, k] + bias[n]) (+ residual[b, n])
struct LinearParams {
  Matrix w;
  const float* bias = nullptr;      // [w.rows] or null
  const float* x = nullptr;         // [b, w.cols]
  const float* residual = nullptr;  // [b, w.rows] or null; may be y
  float* y = nullptr;               // [b, w.rows]
  std::int64_t b = 0;
  bool silu = false;     // act
  bool round_x = false;  // the input may be rounded to bf16 where the ISA has a bf16 dot product
};

// y[b] = x[b] / sqrt(mean(x[b]^2) + eps) * weight
struct RmsNormParams {
  const float* x = nullptr;       // [b, d]
  const float* weight = nullptr;  // [d]
  float* y = nullptr;             // [b, d]
  std::int64_t b = 0, d = 0;
  float eps = 0;
};

// y[b] = (x[b] - mean) / sqrt(var + eps) (* weight + bias) (* (1 + scale[b]) + shift[b]); each pair may be null.
// Without both it is the token-wise normalization.
struct LayerNormParams {
  const float* x = nullptr;       // [b, d]
  const float* weight = nullptr;  // [d]
  const float* bias = nullptr;    // [d]
  const float* shift = nullptr;   // [b, d]
  const float* scale = nullptr;   // [b, d]
  float* y = nullptr;             // [b, d]
  std::int64_t b = 0, d = 0;
  float eps = 0;
};

// Half-split rotary embedding: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin) over the halves of each head.
struct RopeParams {
  const float* x = nullptr;                 // [b, heads, d_head]
  const std::int64_t* positions = nullptr;  // [b]
  float* y = nullptr;                       // [b, heads, d_head]
  std::int64_t b = 0, heads = 0, d_head = 0;
  double theta = 0;
};

// y[b, h] = sum_s softmax_s(q[b, h] . k[b, h/g, s] / sqrt(d_head)) v[b, h/g, s], s < lengths[b], g = h_q / h_kv
struct AttentionParams {
  const float* q = nullptr;  // [b, h_q, d_head]
  const void* k = nullptr;   // [b, h_kv, capacity, d_head]
  const void* v = nullptr;   // as k
  DType kv_dtype = DType::kFloat32;
  const std::int64_t* lengths = nullptr;  // [b], 1..capacity
  float* y = nullptr;                     // [b, h_q, d_head]
  std::int64_t b = 0, h_q = 0, h_kv = 0, d_head = 0, capacity = 0;
};

// y = silu(gate) * up, elementwise over n numbers
struct SiluMulParams {
  const float* gate = nullptr;
  const float* up = nullptr;
  float* y = nullptr;
  std::int64_t n = 0;
};

// Branches of one velocity to the guided one (docs/model.md, "Guidance"). Rows are branch-major.
struct GuidanceParams {
  const float* v = nullptr;  // [branches * images, d_tok]
  float* y = nullptr;        // [images, d_tok]
  std::int64_t branches = 1, images = 0, d_tok = 0;
  float guidance = 1, image_guidance = 1;
  bool renorm = false;
};

// x <- cx * x + cv * v + ce * noise
struct SolverUpdateParams {
  float* x = nullptr;            // [n]
  const float* v = nullptr;      // [n]
  const float* noise = nullptr;  // [n], or null where ce is 0
  std::int64_t n = 0;
  float cx = 1, cv = 0, ce = 0;
};

}  // namespace nsrt
