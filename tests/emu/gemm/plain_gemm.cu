// Takes CUTLASS's place where kernels are emulated: its kernels are made of instructions that the emulator does not
// know. y = x W^T as it is written, for any shape that gemm() lets through; nothing here is meant to be fast on a GPU.
//
// A thread has a column of y and kRows rows of it. Grid: [columns / kColumns, rows / kRows], rounded up.
#include <algorithm>

#include "cuda/device/pack.cuh"
#include "cuda/device/thread.cuh"
#include "cuda/launch.h"
#include "cuda/ops/gemm/library.h"

namespace nsrt::cuda {
namespace {

constexpr int kColumns = 128;
constexpr int kRows = 8;

__device__ void add_products(float (&sums)[kRows], const bf16* x, const bf16* w, int rows, int k) {
  for (int i = 0; i < k; i += 8) {
    float weights[8];
    load8(w + i, weights);
    for (int r = 0; r < rows; ++r) {
      float numbers[8];
      load8(x + std::int64_t{r} * k + i, numbers);
      for (int j = 0; j < 8; ++j) sums[r] = fmaf(numbers[j], weights[j], sums[r]);
    }
  }
}

}  // namespace

// Not in the namespace without a name: what is launched is told by its symbol.
__global__ void __launch_bounds__(kColumns) plain_gemm_kernel(const __grid_constant__ GemmTask task) {
  const int column = static_cast<int>(blockIdx.x) * kColumns + thread_index();
  const int first = static_cast<int>(blockIdx.y) * kRows, rows = std::min(kRows, task.m - first);
  if (column >= task.n) return;
  float sums[kRows] = {};
  add_products(sums, static_cast<const bf16*>(task.x) + std::int64_t{first} * task.k,
               static_cast<const bf16*>(task.w) + std::int64_t{column} * task.k, rows, task.k);
  const float bias = task.bias ? task.bias[column] : 0.0f;
  for (int r = 0; r < rows; ++r) {
    const std::int64_t at = std::int64_t{first + r} * task.n + column;
    if (task.y)
      static_cast<bf16*>(task.y)[at] = rounded<bf16>(sums[r] + bias);
    else
      task.residual[at] += sums[r] + bias;
  }
}

namespace {

void run(const GemmTask& task, const GemmLaunch& launch) {
  const auto blocks = [](int count, int of_block) { return static_cast<unsigned>((count + of_block - 1) / of_block); };
  cuda::launch(
      "gemm", plain_gemm_kernel,
      {.grid = dim3(blocks(task.n, kColumns), blocks(task.m, kRows)), .block = dim3(kColumns), .stream = launch.stream},
      task);
}

constexpr GemmLibrary kLibrary{.name = "plain loops, emulated", .store = run, .accumulate = run};

}  // namespace

const GemmLibrary* gemm_sm90() { return &kLibrary; }
const GemmLibrary* gemm_sm80() { return &kLibrary; }

}  // namespace nsrt::cuda
