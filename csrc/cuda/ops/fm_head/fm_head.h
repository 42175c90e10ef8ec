// The flow-matching loop of one image token, in one cooperative kernel: every step of every solver, guidance, the
// token-wise normalization, and the token's way back into the backbone (image_in_projector). All steps' modulations are
// made before, by one product: they do not depend on x.
//
// A network evaluation is input_proj, then for each block LN, modulation, fc1, SiLU, fc2, gate, residual, then the last
// linear: 2 + 2 x layers products, each of which needs all of what the one before made. A hop between blocks costs
// about as much as a block's bytes, so blocks exchange values that carry their own tag in one 8-byte word: no barrier,
// no flag.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/cost.h"
#include "core/solver.h"
#include "nextstep_rt/tensor.h"

namespace nsrt::cuda {

inline constexpr int kMaxFmRows = 16;

struct FmProduct {
  const void* w = nullptr;  // [n, k], row-major
  const float* bias = nullptr;
};

struct FmBlock {
  const float* norm_weight = nullptr;  // both at multiples of 16 bytes
  const float* norm_bias = nullptr;
  FmProduct fc1, fc2;
};

// SolverStep as the device reads it.
struct FmStep {
  std::int32_t kind = 0;  // SolverStep::Kind
  std::int32_t time = 0;
  std::int32_t draw = -1;
  float cx = 1, cv = 0, ce = 0;
};
FmStep device_step(const SolverStep& step);

// What changes with every token: the guidance scales, then the noise [1 + steps, images, d_tok].
struct FmInputs {
  float guidance = 1, image_guidance = 1;
  float unused[2] = {};  // the noise begins at 16 bytes
};

// Where the token goes after normalization: the next residual stream, as kResidual of linear() leaves it.
struct FmOutlet {
  FmProduct image_in = {};  // [d_model, d_tok]; w is null where there is no outlet
  std::int32_t d_model = 0;
  const float* next_weight = nullptr;  // [d_model]
  float* residual = nullptr;           // [rows, d_model]
  void* x = nullptr;                   // [rows, d_model]
  float* squares = nullptr;            // [rows, blocks of the launch]
};

struct FmHeadTask {
  std::int32_t d = 0, d_mlp = 0, d_tok = 0, layers = 0;
  std::int32_t branches = 1, images = 1;  // rows are branch-major
  bool renorm = false, normalize = true;

  FmProduct input = {};               // [d, d_tok]
  const FmBlock* blocks = nullptr;    // [layers], on the device
  FmProduct output = {};              // [d_tok, d]
  const void* modulations = nullptr;  // [times * rows, (3 layers + 2) d], activations' dtype

  const FmStep* steps = nullptr;  // [step_count], on the device
  std::int32_t step_count = 0;
  const FmInputs* inputs = nullptr;

  // A launch may run a part of the steps, [step_begin, step_end); -1: to the last. What the next one goes on from is in
  // `carry`: x, kept x, kept v; before the first, x is noise 0. Null: a whole token in one launch.
  std::int32_t step_begin = 0, step_end = -1;
  float* carry = nullptr;  // [3, images, d_tok]
  bool finishes = true;    // with normalization, tokens and outlet

  float* velocity = nullptr;  // [rows, d_tok], of the launch's last evaluation
  float* latent = nullptr;    // [images, d_tok], before normalization
  float* tokens = nullptr;    // [images, d_tok]
  FmOutlet outlet = {};

  const std::uint32_t* launches = nullptr;  // how often this workspace was used before: one more with each launch
};

// Buffers of the exchanges, zero before the first launch. One for a stream.
struct FmWorkspace {
  std::uint64_t* words = nullptr;
  std::size_t word_count = 0;
};
std::size_t fm_workspace_words(const FmHeadTask& task);

struct FmLaunch {
  DType weights = DType::kBFloat16;
  DType activations = DType::kBFloat16;
  int sm_count = 0;
  int shared_limit = 0;       // bytes a block may have: what the operands leave holds weights
  std::int64_t l2_bytes = 0;  // of weights that L2 is asked to keep between steps; 0: leave it alone
  cudaStream_t stream = nullptr;
};

// Blocks of the launch: its outlet's squares come in as many parts.
int fm_grid(const FmHeadTask& task, const FmLaunch& launch);

// The most rows, in as many branches as the task has, whose activations fit in the shared memory of a block; it may be
// 0.
int fm_most_rows(const FmHeadTask& task, const FmLaunch& launch);
// Throws InvalidRequest that says how many, where the task has more.
void check_fm_rows(const FmHeadTask& task, const FmLaunch& launch);

// Throws InvalidRequest for shapes that do not fit, Error where the launch fails.
void fm_head(const FmHeadTask& task, const FmWorkspace& workspace, const FmLaunch& launch);

Cost cost(const FmHeadTask& task, DType weights, DType activations);

}  // namespace nsrt::cuda
