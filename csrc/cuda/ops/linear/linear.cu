#include <algorithm>

#include "core/check.h"
#include "cuda/launch.h"
#include "cuda/ops/linear/linear.cuh"
#include "cuda/ops/linear/linear.h"

namespace nsrt::cuda {
namespace {

// Rows from which tensor cores multiply. By reasoning: a step costs them two instructions for up to 8 rows, and the
// other path 32 a row, which should not pay even for one. `python -m bench gpu` times both (stage linear).
constexpr int kTensorRowsFrom = 1;
constexpr int kLargestPairs = 16;                // of any policy, for the workspace
constexpr std::size_t kLeastShared = 99 * 1024;  // that a block may have, on any GPU from compute capability 8.0 on

int tiles_of(const Segment& s, int d_head) {
  switch (s.kind) {
    case TileKind::kRotary:
      return s.n / d_head * ((d_head / 2 + 7) / 8);
    case TileKind::kGated:
      return (s.n + 7) / 8;
    case TileKind::kPlain:
      break;
  }
  return (s.n + kTileRows - 1) / kTileRows;
}

void check_task(const LinearTask& task, const LinearLaunch& launch) {
  check<InvalidRequest>(task.segment_count >= 1 && task.segment_count <= kMaxSegments, "linear takes 1 to ",
                        kMaxSegments, " matrices, not ", task.segment_count);
  check<InvalidRequest>(task.rows >= 1 && task.rows <= kMaxLinearRows, "linear takes 1 to ", kMaxLinearRows,
                        " rows, not ", task.rows);
  check<InvalidRequest>(task.k >= 8 && task.k % 8 == 0, "linear needs a width that is a multiple of 8, not ", task.k);
  check<InvalidRequest>(aligned(task.x), "linear needs x at a multiple of 16 bytes");
  check<InvalidRequest>(launch.sm_count >= 1 && launch.shared_limit >= 1,
                        "linear needs the device's number of multiprocessors and its blocks' shared memory");
  for (int i = 0; i < task.segment_count; ++i) {
    const Segment& s = task.segments[i];
    check<InvalidRequest>(s.n >= 1 && s.w != nullptr, "matrix ", i, " of linear is empty");
    check<InvalidRequest>(aligned(s.w) && aligned(s.w2), "matrix ", i, " of linear must lie at a multiple of 16 bytes");
    check<InvalidRequest>((s.w2 != nullptr) == (s.kind == TileKind::kGated), "only a gated product has two matrices");
    check<InvalidRequest>(s.kind != TileKind::kRotary || (task.d_head >= 2 && s.n % task.d_head == 0), "matrix ", i,
                          " has ", s.n, " rows, no heads of ", task.d_head);
  }
}

template <class Multiply, Epilogue kKind>
void launch_kernel(const LinearTask& task, const LinearWorkspace& workspace, const LinearLaunch& launch) {
  using Shape = LinearShape<Multiply>;
  int tiles = 0;
  for (int i = 0; i < task.segment_count; ++i) tiles += task.segments[i].tiles;
  const std::int64_t steps = std::int64_t{tiles} * ((task.k + kStepWidth - 1) / kStepWidth);
  check<InvalidRequest>(steps <= INT32_MAX, "a matrix of ", steps, " steps is too large for linear");
  // A share below two steps a warp costs more in exchanges than it saves in bytes.
  const auto grid = static_cast<unsigned>(std::clamp<std::int64_t>(steps / (2 * kLinearWarps), 1, launch.sm_count));
  check<InvalidRequest>(workspace.partial_count >= std::size_t{grid} * 2 * Shape::kSlot &&
                            workspace.ticket_count >= static_cast<std::size_t>(tiles),
                        "linear's workspace is too small for ", tiles, " tiles");
  const auto start = [&]<int kStages>(std::integral_constant<int, kStages>) {
    cuda::launch("linear", linear_kernel<Multiply, kKind, kStages>,
                 {.grid = dim3(grid),
                  .block = dim3(kLinearThreads),
                  .shared_bytes = Shape::shared_bytes(kStages),
                  .stream = launch.stream,
                  .overlaps = launch.overlaps},
                 task, workspace);
  };
  static_assert(Shape::shared_bytes(Multiply::kFewStages) <= kLeastShared);
  if (Shape::shared_bytes(Multiply::kStages) <= static_cast<std::size_t>(launch.shared_limit))
    start(std::integral_constant<int, Multiply::kStages>{});
  else
    start(std::integral_constant<int, Multiply::kFewStages>{});
}

// Calls f with the smallest policy that takes the rows.
template <class F>
void with_policy(int rows, const LinearLaunch& launch, F&& f) {
  const bool half = launch.weights == DType::kBFloat16 && launch.activations == DType::kBFloat16;
  const bool tensor =
      launch.path == LinearPath::kTensor || (launch.path == LinearPath::kAuto && half && rows >= kTensorRowsFrom);
  if (tensor) {
    check<InvalidRequest>(half, "tensor cores take bfloat16 weights and activations only");
    if (rows <= 8) return f(TensorMultiply<1>{});
    if (rows <= 16) return f(TensorMultiply<2>{});
    if (rows <= 32) return f(TensorMultiply<4>{});
    return f(TensorMultiply<8>{});
  }
  check<InvalidRequest>(rows <= 16, "multiply-and-add takes at most 16 rows at a time, not ", rows);
  if (half) {
    if (rows <= 2) return f(FmaMultiply<bf16, bf16, 2>{});
    if (rows <= 4) return f(FmaMultiply<bf16, bf16, 4>{});
    return f(FmaMultiply<bf16, bf16, 16>{});
  }
  check<InvalidRequest>(launch.activations == DType::kFloat32, "float32 weights need float32 activations");
  if (launch.weights == DType::kBFloat16)
    rows <= 4 ? f(FmaMultiply<bf16, float, 4>{}) : f(FmaMultiply<bf16, float, 16>{});
  else
    rows <= 4 ? f(FmaMultiply<float, float, 4>{}) : f(FmaMultiply<float, float, 16>{});
}

template <Epilogue kKind>
void dispatch(const LinearTask& task, const LinearWorkspace& workspace, const LinearLaunch& launch) {
  with_policy(task.rows, launch,
              [&]<class Multiply>(Multiply) { launch_kernel<Multiply, kKind>(task, workspace, launch); });
}

}  // namespace

WorkspaceNeed linear_workspace(int sm_count, std::int64_t tiles) {
  return {.partials = static_cast<std::size_t>(sm_count) * 2 * 32 * 2 * kLargestPairs,
          .tickets = static_cast<std::size_t>(tiles)};
}

void linear(const LinearTask& given, const LinearWorkspace& workspace, const LinearLaunch& launch) {
  check_task(given, launch);
  LinearTask task = given;
  for (int i = 0; i < task.segment_count; ++i) task.segments[i].tiles = tiles_of(task.segments[i], task.d_head);
  switch (task.epilogue) {
    case Epilogue::kStore:
      return dispatch<Epilogue::kStore>(task, workspace, launch);
    case Epilogue::kActivate:
      return dispatch<Epilogue::kActivate>(task, workspace, launch);
    case Epilogue::kResidual:
      return dispatch<Epilogue::kResidual>(task, workspace, launch);
    case Epilogue::kGated:
      return dispatch<Epilogue::kGated>(task, workspace, launch);
    case Epilogue::kQkv:
      return dispatch<Epilogue::kQkv>(task, workspace, launch);
    case Epilogue::kTimes:
      return dispatch<Epilogue::kTimes>(task, workspace, launch);
  }
}

Cost cost(const LinearTask& task, DType weights, DType activations) {
  Cost total;
  const std::int64_t k = task.k, rows = task.rows;
  const auto width = static_cast<std::int64_t>(item_size(activations));
  for (int i = 0; i < task.segment_count; ++i) {
    const Segment& s = task.segments[i];
    const std::int64_t n = std::int64_t{s.n} * (s.kind == TileKind::kGated ? 2 : 1);
    total.bytes += n * k * static_cast<std::int64_t>(item_size(weights)) + rows * s.n * width;
    total.flops += 2 * n * k * rows;
  }
  total.bytes += rows * k * width;
  return total;
}

}  // namespace nsrt::cuda
