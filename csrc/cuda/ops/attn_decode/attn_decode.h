// Attention of few queries over the KV cache ("flash decoding"): y = softmax(q . k) v per head, over positions
// start..position of the query's own sequence, and zeros where there are none. The positions are split between blocks,
// whose parts are combined in order. Query heads that share a KV head are computed together, so keys and values are
// read once.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/cost.h"
#include "cuda/ops/linear/linear.h"

namespace nsrt::cuda {

struct AttnDecodeTask {
  const void* q = nullptr;               // [rows, h_q, d_head], rotated and scaled by 1 / sqrt(d_head)
  const void* k = nullptr;               // [sequences, h_kv, capacity, d_head]
  const void* v = nullptr;               // as k
  const RowPlace* places = nullptr;      // [rows]: the query's sequence and position
  const std::int32_t* starts = nullptr;  // [rows]: the first position it sees; null: 0
  void* y = nullptr;                     // [rows, h_q, d_head]
  std::int32_t rows = 0, h_q = 0, h_kv = 0, d_head = 0;
  std::int64_t capacity = 0;
  std::int32_t splits = 1;  // of the positions
};

inline constexpr std::int32_t kMaxHeadDim = 256;

// One for a stream; tickets are zero between launches.
struct AttnWorkspace {
  float* partials = nullptr;
  std::uint32_t* tickets = nullptr;
  std::size_t partial_count = 0, ticket_count = 0;
};

// Splits that keep a device busy with caches of `positions`; what they need of a workspace.
std::int32_t attn_splits(int sm_count, std::int32_t rows, std::int32_t h_kv, std::int64_t positions);
WorkspaceNeed attn_workspace(const AttnDecodeTask& task);

struct AttnLaunch {
  DType dtype = DType::kBFloat16;  // of q, y and both caches
  bool overlaps = false;
  cudaStream_t stream = nullptr;
};

// Enqueues the attention. bfloat16 with d_head 64 or 128 runs on tensor cores, all else (float32; d_head any multiple
// of 8 up to 256) on multiply-and-add. Throws InvalidRequest for anything else, Error where the launch fails.
void attn_decode(const AttnDecodeTask& task, const AttnWorkspace& workspace, const AttnLaunch& launch);

// With every row at `positions`.
Cost cost(const AttnDecodeTask& task, DType dtype, std::int64_t positions);

}  // namespace nsrt::cuda
