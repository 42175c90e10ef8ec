// y = W x for a few rows x, with what surrounds a product in the model fused onto it: RMSNorm before; bias, residual,
// SwiGLU, rotary embedding and KV append after. Sums are float32.
//
// RMSNorm needs no pass of its own: y = rstd * (W (x * weight)), so whoever writes a row stores it times the next
// norm's weight, with partial sums of its squares, and the product applies rstd to its sums.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/cost.h"
#include "nextstep_rt/tensor.h"

namespace nsrt::cuda {

inline constexpr int kTileRows = 16;       // weight rows of a tile: 8 "low" and 8 "high"
inline constexpr int kMaxSegments = 3;     // matrices of one launch
inline constexpr int kMaxLinearRows = 64;  // of x, in one launch

// How a tile's low and high rows lie in the matrix: what an epilogue must see together shares a lane.
enum class TileKind : std::int32_t {
  kPlain,   // 16 consecutive rows
  kRotary,  // rows i and i + d_head / 2 of one head
  kGated,   // row i of `w` and row i of `w2`
};

// A matrix [n, k], row-major.
struct Segment {
  const void* w = nullptr;
  const void* w2 = nullptr;      // kGated: same shape
  const float* bias = nullptr;   // [n] or null
  const float* bias2 = nullptr;  // of w2
  std::int32_t n = 0;
  std::int32_t tiles = 0;  // filled by linear()
  TileKind kind = TileKind::kPlain;
};

// The sum of squares of each row of x, in `parts` addends [rows, parts]; null: x is not to be normalized.
struct RmsStatistics {
  const float* squares = nullptr;
  std::int32_t parts = 0;
  std::int32_t width = 0;  // numbers that were squared
  float eps = 0;
};

// Where a row's keys and values go: sequence and position of each row, on the device.
struct RowPlace {
  std::int32_t sequence = 0;
  std::int32_t position = 0;
};

enum class Epilogue : std::int32_t {
  kStore,     // y = act(v + bias) (+ residual), float32
  kActivate,  // the same in the activations' dtype, without residual
  kResidual,  // residual += v + bias; y = residual * next_weight in the activations' dtype, with its squares
  kGated,     // y = silu(gate) * up
  kQkv,       // q: rotated, scaled -> y; k: rotated -> cache; v -> cache
  kTimes,     // y[s, r] = silu(v + bias + times[s]) for every step s
};

struct LinearTask {
  Segment segments[kMaxSegments] = {};
  std::int32_t segment_count = 0;
  std::int32_t k = 0;
  std::int32_t rows = 0;    // of x
  const void* x = nullptr;  // [rows, k], activations' dtype, dense
  RmsStatistics norm = {};
  Epilogue epilogue = Epilogue::kStore;
  bool silu = false;  // act of kStore and kActivate

  void* y = nullptr;  // [rows, y_stride]
  std::int64_t y_stride = 0;
  float* residual = nullptr;           // kStore: read; kResidual: updated. [rows, n], or null
  const float* next_weight = nullptr;  // kResidual: [n]
  float* squares = nullptr;            // kResidual: [rows, tiles]

  // kQkv. Caches [sequence, h_kv, capacity, d_head]; tables [position, d_head / 2].
  std::int32_t d_head = 0, h_kv = 0;
  std::int64_t capacity = 0;
  void* k_cache = nullptr;
  void* v_cache = nullptr;
  const float* cos = nullptr;
  const float* sin = nullptr;
  const RowPlace* places = nullptr;  // [rows]

  // kTimes: y is [steps, rows, n].
  const float* times = nullptr;  // [steps, n]
  std::int32_t steps = 0;
};

// Room for tiles that several blocks share, one for a stream: partial sums, and tickets that are zero between launches.
struct LinearWorkspace {
  float* partials = nullptr;
  std::uint32_t* tickets = nullptr;
  std::size_t partial_count = 0;
  std::size_t ticket_count = 0;
};

// Partials and tickets that an op needs on a device.
struct WorkspaceNeed {
  std::size_t partials = 0;  // floats
  std::size_t tickets = 0;
};
WorkspaceNeed linear_workspace(int sm_count, std::int64_t tiles);

enum class LinearPath {
  kAuto,    // tensor cores, where they take the dtypes
  kTensor,  // mma.sync: bf16 weights and activations
  kFma,     // any dtypes
};

struct LinearLaunch {
  DType weights = DType::kBFloat16;
  DType activations = DType::kBFloat16;
  LinearPath path = LinearPath::kAuto;
  int sm_count = 0;
  int shared_limit = 0;   // bytes a block may have: how far ahead weights are loaded
  bool overlaps = false;  // starts while its predecessor runs; its own successor may, too
  cudaStream_t stream = nullptr;
};

// Enqueues y = W x. Throws InvalidRequest for shapes and dtypes that no kernel takes, Error where the launch fails.
void linear(const LinearTask& task, const LinearWorkspace& workspace, const LinearLaunch& launch);

Cost cost(const LinearTask& task, DType weights, DType activations);

}  // namespace nsrt::cuda
