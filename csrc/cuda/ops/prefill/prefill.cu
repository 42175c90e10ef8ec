#include "core/check.h"
#include "cuda/launch.h"
#include "cuda/ops/prefill/prefill.cuh"
#include "cuda/ops/prefill/prefill.h"

namespace nsrt::cuda {
namespace {

constexpr std::int64_t kNumber = 2, kFloat = 4;  // bytes

void check_rows(const char* op, std::int32_t rows, const char* width, std::int32_t d,
                std::initializer_list<const void*> pointers) {
  check<InvalidRequest>(rows >= 1, op, " needs a row or more, not ", rows);
  check<InvalidRequest>(d >= 8 && d % 8 == 0, op, " needs a ", width, " that is a multiple of 8, not ", d);
  for (const void* p : pointers) check<InvalidRequest>(aligned(p), op, " needs its arrays at multiples of 16 bytes");
}

template <class Task>
void launch_rows(const char* name, void (*kernel)(Task), const Task& task, const PrefillLaunch& launch) {
  cuda::launch(name, kernel,
               {.grid = dim3(static_cast<unsigned>(task.rows)),
                .block = dim3(kRowThreads),
                .stream = launch.stream,
                .overlaps = launch.overlaps},
               task);
}

}  // namespace

void norm_rows(const NormRowsTask& task, const PrefillLaunch& launch) {
  check_rows("norm_rows", task.rows, "d", task.d, {task.residual, task.weight, task.x});
  launch_rows("norm_rows", norm_rows_kernel, task, launch);
}

void append_rows(const AppendRowsTask& task, const PrefillLaunch& launch) {
  check_rows("append_rows", task.rows, "d_head", task.d_head,
             {task.qkv, task.q_bias, task.k_bias, task.v_bias, task.q, task.k_cache, task.v_cache, task.cos, task.sin});
  check<InvalidRequest>(task.h_q >= 1 && task.h_kv >= 1 && task.capacity >= 1, "append_rows of ", task.h_q,
                        " query heads and ", task.h_kv, " kv heads to a cache of ", task.capacity,
                        " positions: each must be one or more");
  launch_rows("append_rows", append_rows_kernel, task, launch);
}

void gate_rows(const GateRowsTask& task, const PrefillLaunch& launch) {
  check_rows("gate_rows", task.rows, "d", task.d, {task.gate_up, task.gate_bias, task.up_bias, task.y});
  launch_rows("gate_rows", gate_rows_kernel, task, launch);
}

Cost cost(const NormRowsTask& task) {
  const std::int64_t numbers = std::int64_t{task.rows} * task.d;
  return {.bytes = numbers * (kFloat + kNumber) + task.d * kFloat, .flops = 4 * numbers};
}

Cost cost(const AppendRowsTask& task) {
  const std::int64_t rotated = std::int64_t{task.rows} * (task.h_q + task.h_kv) * task.d_head;
  const std::int64_t numbers = rotated + std::int64_t{task.rows} * task.h_kv * task.d_head;
  return {.bytes = 2 * numbers * kNumber + std::int64_t{task.rows} * task.d_head * kFloat, .flops = 3 * rotated};
}

Cost cost(const GateRowsTask& task) {
  const std::int64_t numbers = std::int64_t{task.rows} * task.d;
  return {.bytes = 3 * numbers * kNumber, .flops = 5 * numbers};
}

}  // namespace nsrt::cuda
