#include "core/check.h"
#include "cuda/launch.h"
#include "cuda/ops/gemm/gemm.h"
#include "cuda/ops/gemm/library.h"
#include "cuda/ops/linear/linear.h"

namespace nsrt::cuda {
namespace {

// The libraries' copies are of 16 bytes.
constexpr std::int32_t kNumbersOfCopy = 8;

void check_task(const GemmTask& t, const GemmLaunch& launch) {
  check<InvalidRequest>(launch.weights == DType::kBFloat16 && launch.activations == DType::kBFloat16,
                        "gemm takes bfloat16 weights and activations only");
  check<InvalidRequest>(t.m >= 1 && t.n >= 1 && t.k >= 1, "gemm needs a row of a number or more on each side, not ",
                        t.m, " x ", t.k, " by ", t.n, " x ", t.k);
  check<InvalidRequest>(t.n % kNumbersOfCopy == 0 && t.k % kNumbersOfCopy == 0,
                        "gemm needs widths that are multiples of ", kNumbersOfCopy, ", not n = ", t.n,
                        " and k = ", t.k);
  check<InvalidRequest>(t.x != nullptr && t.w != nullptr, "gemm needs both operands");
  check<InvalidRequest>((t.y != nullptr) != (t.residual != nullptr),
                        "gemm writes either y or the residual: give it one of them");
  for (const auto& [name, p] : {std::pair<const char*, const void*>{"x", t.x},
                                {"W", t.w},
                                {"bias", t.bias},
                                {"y", t.y},
                                {"residual", t.residual}})
    check<InvalidRequest>(aligned(p), "gemm needs ", name, " at a multiple of 16 bytes");
  check<InvalidRequest>(launch.sm_count >= 1, "gemm needs the device's number of multiprocessors");
}

}  // namespace

const GemmLibrary* gemm_library(int major, int minor) {
  const GemmLibrary* hopper = major == 9 && minor == 0 ? gemm_sm90() : nullptr;
  return hopper != nullptr ? hopper : gemm_sm80();
}

std::string gemm_name(const GemmLibrary* library) {
  return library != nullptr ? library->name : str("linear kernels in chunks of ", kMaxLinearRows);
}

void gemm(const GemmTask& task, const GemmLaunch& launch) {
  check_task(task, launch);
  check(launch.library != nullptr, "gemm has no library for this GPU in this build; build with CUTLASS");
  (task.y != nullptr ? launch.library->store : launch.library->accumulate)(task, launch);
}

Cost cost(const GemmTask& task) {
  const std::int64_t m = task.m, n = task.n, k = task.k;
  // y is written; the residual is read and written.
  const std::int64_t result = task.y != nullptr ? 2 : 2 * static_cast<std::int64_t>(sizeof(float));
  return {.bytes = 2 * (m * k + n * k) + result * m * n, .flops = 2 * m * n * k};
}

}  // namespace nsrt::cuda
