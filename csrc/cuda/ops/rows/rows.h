// What is done to whole rows between products: the ends of the backbone, and the FM head's condition. Each is a few
// kilobytes, bound by its launch.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/ops/linear/linear.h"

namespace nsrt::cuda {

struct RowsLaunch {
  DType activations = DType::kBFloat16;
  bool overlaps = false;
  cudaStream_t stream = nullptr;
};

// Rows of embeddings as kResidual of linear() leaves them: x = residual * next_weight, and the sums of squares, in one
// part.
struct BeginRowsTask {
  const float* residual = nullptr;     // [rows, d]
  const float* next_weight = nullptr;  // [d]
  void* x = nullptr;                   // [rows, d]
  float* squares = nullptr;            // [rows]
  std::int32_t rows = 0, d = 0;
};
void begin_rows(const BeginRowsTask& task, const RowsLaunch& launch);

// The final norm of those rows that end a sequence: hidden[keep[r]] = residual[r] * rstd * weight. Where no squares are
// given, it takes those of the residual.
struct TakeHiddenTask {
  const float* residual = nullptr;  // [rows, d]
  RmsStatistics norm = {};
  const float* weight = nullptr;       // [d]
  const std::int32_t* keep = nullptr;  // [rows]: the sequence, or -1
  float* hidden = nullptr;             // [sequences, d]
  std::int32_t rows = 0, d = 0;
};
void take_hidden(const TakeHiddenTask& task, const RowsLaunch& launch);

// The operand of image_out_projector: hidden + position[*token], rounded.
struct ConditionTask {
  const float* hidden = nullptr;        // [rows, d]
  const float* position = nullptr;      // gen_pos_embed [tokens, d], or null
  const std::int32_t* token = nullptr;  // on the device
  void* x = nullptr;                    // [rows, d]
  std::int32_t rows = 0, d = 0;
};
void condition_rows(const ConditionTask& task, const RowsLaunch& launch);

Cost cost(const BeginRowsTask& task, DType activations);
Cost cost(const TakeHiddenTask& task);  // with every row kept
Cost cost(const ConditionTask& task, DType activations);

}  // namespace nsrt::cuda
