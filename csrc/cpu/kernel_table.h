// What every ISA level provides: one function per inner loop, over plain pointers. Nothing here allocates or throws.
#pragma once

#include <cstdint>

#include "nextstep_rt/tensor.h"

namespace nsrt::cpu {

// y[r, n] = dot(x[r], w[n]) for n in [n0, n1), r in [0, rows). Each dot product is summed in the same order whatever
// n0, n1 and rows are: a result depends on nothing but its own row and column.
struct MatmulArgs {
  const void* w;  // row-major, `cols` elements a row
  DType w_dtype;
  std::int64_t cols;
  const void* x;          // rows of float32, or of bf16 for a bf16 dot product
  DType x_dtype;          // kBFloat16 only with a bf16 w and a table that has_dot
  std::int64_t x_stride;  // elements between rows
  float* y;
  std::int64_t y_stride;
  std::int64_t n0, n1, rows;
  void* packed = nullptr;  // room for packed_size(rows, cols) bf16 numbers, where the table packs and x is bf16
};

// Numbers of the copy of x in which a table that packs turns it into tiles: 16 rows at most and 32 columns each.
constexpr std::int64_t packed_size(std::int64_t rows, std::int64_t cols) {
  return (rows + 15) / 16 * 16 * ((cols + 31) / 32 * 32);
}

// Query heads that a kernel takes through a block at once, at most.
inline constexpr std::int64_t kMostHeads = 5;

// One block of a sequence's keys and values against the g query heads that share them: unnormalised softmax.
struct AttentionBlockArgs {
  const float* q;  // [g, d_head], scaled by 1/sqrt(d_head)
  const void* k;   // [positions, d_head]
  const void* v;
  DType kv_dtype;
  std::int64_t g, d_head, positions;
  float* scores;  // scratch [min(g, kMostHeads), positions]
  float* out;     // [g, d_head]: sum of exp(score - max) * v
  float* max;     // [g]
  float* sum;     // [g]
};

// Loops whose speed is what the hardware allows (kernels/roofs.h). Numbers of floats are multiples of kRoofUnit.
inline constexpr std::int64_t kRoofUnit = 128;
struct RoofTable {
  // A round of multiply_* is `chains`, or `pair_chains`, operations of `lanes` lanes.
  int lanes, chains, pair_chains;
  float (*read_in_order)(const float* p, std::int64_t n);
  float (*read_in_streams)(const float* p, std::int64_t n);
  void (*copy)(const float* from, std::int64_t n, float* to);
  float (*multiply_floats)(std::int64_t rounds, float a, float b);
  float (*multiply_pairs)(std::int64_t rounds, float a, float b);  // null unless has_dot
};

struct KernelTable {
  const char* name;
  bool has_dot;  // matmul takes bf16 x
  bool packs;    // and wants MatmulArgs::packed for it

  void (*matmul)(const MatmulArgs&);
  void (*attention_block)(const AttentionBlockArgs&);
  // y = x * rsqrt(mean(x^2) + eps) * w
  void (*rms_norm)(const float* x, const float* w, std::int64_t n, float eps, float* y);
  // y = (x - mean) * rsqrt(var + eps), then * w + b, then * (1 + scale) + shift; null pairs are left out
  void (*layer_norm)(const float* x, const float* w, const float* b, const float* shift, const float* scale,
                     std::int64_t n, float eps, float* y);
  // y = act(x + bias) (+ residual); bias and residual may be null
  void (*epilogue)(const float* x, const float* bias, const float* residual, bool silu, std::int64_t n, float* y);
  // h += gate * (x + bias)
  void (*gated_residual)(const float* x, const float* bias, const float* gate, std::int64_t n, float* h);
  // y = silu(a + a_bias) * (b + b_bias); biases may be null
  void (*silu_mul)(const float* a, const float* a_bias, const float* b, const float* b_bias, std::int64_t n, float* y);
  // y = silu(a + b)
  void (*silu_add)(const float* a, const float* b, std::int64_t n, float* y);
  // Half-split rotation of one head; cos and sin hold d_head / 2 numbers.
  void (*rope)(const float* x, const float* cos, const float* sin, std::int64_t d_head, float* y);
  // y = cx * x + cv * v + ce * e; e may be null
  void (*update)(const float* x, const float* v, const float* e, float cx, float cv, float ce, std::int64_t n,
                 float* y);
  void (*to_bf16)(const float* x, std::int64_t n, std::uint16_t* y);
  // y = sum_i a[i] * x[i] over `count` vectors, in order: the combine of attention blocks
  void (*weighted_sum)(const float* x, std::int64_t x_stride, const float* a, std::int64_t count, std::int64_t n,
                       float* y);
  RoofTable roofs;
};

namespace portable {
extern const KernelTable kTable;
}
#if defined(NSRT_X86)
namespace avx2 {
extern const KernelTable kTable;
}
namespace avx512 {
extern const KernelTable kTable;
}
namespace avx512_bf16 {
extern const KernelTable kTable;
}
namespace amx_bf16 {
extern const KernelTable kTable;
}
#endif

}  // namespace nsrt::cpu
