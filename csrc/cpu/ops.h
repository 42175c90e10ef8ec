// Every stage of the loop as a function on host arrays, over the same kernels as the backend: for tests, the bench and
// other projects. Pointers must be valid for the shapes their params state; the Python binding checks them.
#pragma once

#include <cstdint>

#include "core/params.h"
#include "cpu/kernel_table.h"
#include "cpu/pool.h"

namespace nsrt::cpu {

// Positions one work item of attention covers. Fixed, so that the order of sums is.
inline constexpr std::int64_t kAttentionBlock = 256;
// Output columns per unit of a split: whole blocks of the matmul kernel.
inline constexpr std::int64_t kColumnUnit = 16;

constexpr std::int64_t attention_blocks(std::int64_t positions) {
  return (positions + kAttentionBlock - 1) / kAttentionBlock;
}

void linear(const KernelTable& kernels, const LinearParams& p, Pool& pool);
void rms_norm(const KernelTable& kernels, const RmsNormParams& p);
void layer_norm(const KernelTable& kernels, const LayerNormParams& p);
void rope(const KernelTable& kernels, const RopeParams& p);
void attention(const KernelTable& kernels, const AttentionParams& p, Pool& pool);
void silu_mul(const KernelTable& kernels, const SiluMulParams& p);
void guidance(const KernelTable& kernels, const GuidanceParams& p);
void solver_update(const KernelTable& kernels, const SolverUpdateParams& p);

// One query head's blocks of attention to its output: sum_b e^(max_b - max) out_b / sum_b e^(max_b - max) sum_b, in
// order of blocks, which lie `stride` heads apart. factors [blocks] is scratch; y [d_head].
void combine_attention_blocks(const KernelTable& kernels, const float* out, const float* max, const float* sum,
                              std::int64_t stride, std::int64_t blocks, std::int64_t d_head, float* factors, float* y);

}  // namespace nsrt::cpu
