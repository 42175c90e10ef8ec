#include <algorithm>

#include "core/check.h"
#include "cuda/launch.h"
#include "cuda/ops/fm_head/fm_head.cuh"
#include "cuda/ops/fm_head/fm_head.h"

namespace nsrt::cuda {
namespace {

// Takes arrays as the carver does, for their bytes alone.
struct Sizer : SharedSize {
  template <class T>
  __host__ __device__ T* take(std::size_t count) {
    add<T>(count);
    return nullptr;
  }
};

int rows_of(const FmHeadTask& t) { return t.branches * t.images; }
int end_of(const FmHeadTask& t) { return t.step_end < 0 ? t.step_count : t.step_end; }

void check_task(const FmHeadTask& t, const FmLaunch& launch) {
  check<InvalidRequest>(t.branches >= 1 && t.branches <= 3 && t.images >= 1 && rows_of(t) <= kMaxFmRows, "the FM head ",
                        "takes 1 to 3 branches and at most ", kMaxFmRows, " rows, not ", t.branches, " x ", t.images);
  for (const auto& [name, width] : {std::pair{"d", t.d}, {"d_mlp", t.d_mlp}, {"d_tok", t.d_tok}})
    check<InvalidRequest>(width >= 8 && width % 8 == 0, "the FM head needs a ", name, " that is a multiple of 8, not ",
                          width);
  check<InvalidRequest>(t.layers >= 1 && t.step_count >= 1, "the FM head needs a block and a step, not ", t.layers,
                        " and ", t.step_count);
  check<InvalidRequest>(t.step_begin >= 0 && t.step_begin <= end_of(t) && end_of(t) <= t.step_count, "the FM head has ",
                        "steps 0 to ", t.step_count, ", not ", t.step_begin, " to ", end_of(t));
  check<InvalidRequest>(t.carry != nullptr || (t.step_begin == 0 && end_of(t) == t.step_count && t.finishes),
                        "a part of the FM head's steps needs a carry");
  check<InvalidRequest>(
      aligned(t.input.w) && aligned(t.output.w) && aligned(t.modulations) && aligned(t.outlet.image_in.w),
      "the FM head's matrices must lie at multiples of 16 bytes");
  check<InvalidRequest>(launch.sm_count >= 1, "the FM head needs the device's number of multiprocessors");
}

// Shared memory of a block, with so many numbers of weights.
template <class W, class A>
std::int64_t shared_bytes(const FmHeadTask& t, std::size_t weights) {
  Sizer size;
  FmShared<W, A>::carve(size, t, weights);
  return static_cast<std::int64_t>(size.bytes());
}

std::int64_t activation_bytes(const FmHeadTask& t, DType activations) {
  return activations == DType::kBFloat16 ? shared_bytes<bf16, bf16>(t, 0) : shared_bytes<float, float>(t, 0);
}

// As many matrices in shared memory as the activations leave room for, then as many in L2 as it was given.
template <class W, class A>
FmPlacement place(const FmHeadTask& t, const FmLaunch& launch, int blocks) {
  const auto fits = [&](int resident) {
    return shared_bytes<W, A>(t, resident_numbers(t, resident, blocks)) <= launch.shared_limit;
  };
  FmPlacement placement;
  while (placement.resident < 2 * t.layers && fits(placement.resident + 1)) ++placement.resident;
  const std::int64_t matrix = std::int64_t{t.d} * t.d_mlp * static_cast<std::int64_t>(sizeof(W));
  placement.cached =
      static_cast<int>(std::min<std::int64_t>(launch.l2_bytes / matrix, 2 * t.layers - placement.resident));
  return placement;
}

template <class W, class A, int kRows>
void launch_kernel(const FmHeadTask& task, const FmWorkspace& workspace, const FmLaunch& launch) {
  const int blocks = fm_grid(task, launch);
  const FmPlacement placement = place<W, A>(task, launch, blocks);
  const std::int64_t bytes = shared_bytes<W, A>(task, resident_numbers(task, placement.resident, blocks));
  cuda::launch("fm_head", fm_head_kernel<W, A, kRows>,
               {.grid = dim3(static_cast<unsigned>(blocks)),
                .block = dim3(kFmThreads),
                .shared_bytes = static_cast<std::size_t>(bytes),
                .stream = launch.stream,
                .cooperative = true},
               task, workspace, placement);
}

template <class W, class A>
void dispatch(const FmHeadTask& task, const FmWorkspace& workspace, const FmLaunch& launch) {
  const int rows = rows_of(task);
  if (rows == 1) return launch_kernel<W, A, 1>(task, workspace, launch);
  if (rows == 2) return launch_kernel<W, A, 2>(task, workspace, launch);
  if (rows <= 4) return launch_kernel<W, A, 4>(task, workspace, launch);
  if (rows <= 8) return launch_kernel<W, A, 8>(task, workspace, launch);
  launch_kernel<W, A, 16>(task, workspace, launch);
}

}  // namespace

FmStep device_step(const SolverStep& s) {
  return {.kind = static_cast<std::int32_t>(s.kind),
          .time = static_cast<std::int32_t>(s.time),
          .draw = static_cast<std::int32_t>(s.draw),
          .cx = s.cx,
          .cv = s.cv,
          .ce = s.ce};
}

std::size_t fm_workspace_words(const FmHeadTask& t) {
  const auto rows = static_cast<std::size_t>(rows_of(t));
  return rows * static_cast<std::size_t>(2 * t.d + t.d_mlp + t.d_tok);
}

int fm_grid(const FmHeadTask& t, const FmLaunch& launch) { return std::min({launch.sm_count, t.d, t.d_mlp}); }

int fm_most_rows(const FmHeadTask& task, const FmLaunch& launch) {
  FmHeadTask t = task;
  for (t.images = kMaxFmRows / t.branches; t.images > 0; --t.images)
    if (activation_bytes(t, launch.activations) <= launch.shared_limit) break;
  return rows_of(t);
}

void check_fm_rows(const FmHeadTask& task, const FmLaunch& launch) {
  const int most = fm_most_rows(task, launch);
  check<InvalidRequest>(rows_of(task) <= most, "the FM head needs ", activation_bytes(task, launch.activations),
                        " bytes of shared memory for ", rows_of(task), " rows (images times branches), and a block of ",
                        "this GPU may have ", launch.shared_limit, ", which is enough for ", most,
                        "; ask for fewer images at once");
}

void fm_head(const FmHeadTask& given, const FmWorkspace& workspace, const FmLaunch& launch) {
  check_task(given, launch);
  FmHeadTask task = given;
  task.step_end = end_of(given);
  check_fm_rows(task, launch);
  check<InvalidRequest>(workspace.word_count >= fm_workspace_words(task), "the FM head's workspace has ",
                        workspace.word_count, " words and needs ", fm_workspace_words(task));
  if (launch.activations == DType::kBFloat16 && launch.weights == DType::kBFloat16)
    return dispatch<bf16, bf16>(task, workspace, launch);
  check<InvalidRequest>(launch.activations == DType::kFloat32, "float32 weights need float32 activations");
  if (launch.weights == DType::kBFloat16) return dispatch<bf16, float>(task, workspace, launch);
  dispatch<float, float>(task, workspace, launch);
}

Cost cost(const FmHeadTask& t, DType weights, DType activations) {
  const std::int64_t core = 2 * std::int64_t{t.d} * t.d_tok + 2 * std::int64_t{t.layers} * t.d * t.d_mlp;
  const std::int64_t modulation = std::int64_t{rows_of(t)} * (3 * t.layers + 2) * t.d;
  const std::int64_t outlet = t.finishes ? std::int64_t{t.outlet.d_model} * t.d_tok : 0;
  const std::int64_t steps = end_of(t) - t.step_begin;
  const auto width = static_cast<std::int64_t>(item_size(weights));
  return {
      .bytes = steps * (core * width + modulation * static_cast<std::int64_t>(item_size(activations))) + outlet * width,
      .flops = 2 * (steps * core * rows_of(t) + outlet * t.images)};
}

}  // namespace nsrt::cuda
