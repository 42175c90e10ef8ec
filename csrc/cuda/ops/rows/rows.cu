#include "core/check.h"
#include "cuda/launch.h"
#include "cuda/ops/rows/rows.cuh"
#include "cuda/ops/rows/rows.h"

namespace nsrt::cuda {
namespace {

void check_rows(const char* op, std::int32_t rows, std::int32_t d) {
  check<InvalidRequest>(rows >= 1 && d >= 1, op, " needs a row of a number or more, not ", rows, " of ", d);
}

template <class Task>
void launch_rows(const char* name, void (*kernel)(Task), const Task& task, const RowsLaunch& launch) {
  cuda::launch(name, kernel,
               {.grid = dim3(static_cast<unsigned>(task.rows)),
                .block = dim3(kRowThreads),
                .stream = launch.stream,
                .overlaps = launch.overlaps},
               task);
}

}  // namespace

void begin_rows(const BeginRowsTask& task, const RowsLaunch& launch) {
  check_rows("begin_rows", task.rows, task.d);
  const bool half = launch.activations == DType::kBFloat16;
  launch_rows("begin_rows", half ? begin_rows_kernel<bf16> : begin_rows_kernel<float>, task, launch);
}

void take_hidden(const TakeHiddenTask& task, const RowsLaunch& launch) {
  check_rows("take_hidden", task.rows, task.d);
  launch_rows("take_hidden", take_hidden_kernel, task, launch);
}

void condition_rows(const ConditionTask& task, const RowsLaunch& launch) {
  check_rows("condition_rows", task.rows, task.d);
  const bool half = launch.activations == DType::kBFloat16;
  launch_rows("condition_rows", half ? condition_rows_kernel<bf16> : condition_rows_kernel<float>, task, launch);
}

Cost cost(const BeginRowsTask& task, DType activations) {
  const std::int64_t n = std::int64_t{task.rows} * task.d;
  const auto width = static_cast<std::int64_t>(item_size(activations));
  return {.bytes = n * (4 + width) + 4 * std::int64_t{task.d} + 4 * std::int64_t{task.rows}, .flops = 3 * n};
}

Cost cost(const TakeHiddenTask& task) {
  const std::int64_t n = std::int64_t{task.rows} * task.d, parts = std::int64_t{task.rows} * task.norm.parts;
  const bool squared = task.norm.squares != nullptr;  // else the rows are read once more for it, from cache
  return {.bytes = 8 * n + 4 * std::int64_t{task.d} + (squared ? 4 * parts : 0),
          .flops = 2 * n + (squared ? parts : 2 * n)};
}

Cost cost(const ConditionTask& task, DType activations) {
  const std::int64_t n = std::int64_t{task.rows} * task.d;
  const auto width = static_cast<std::int64_t>(item_size(activations));
  const bool moved = task.position != nullptr;
  return {.bytes = n * (4 + width) + (moved ? 4 * std::int64_t{task.d} : 0), .flops = moved ? n : 0};
}

}  // namespace nsrt::cuda
