// y = x W^T for many rows of x: the products of prefill. Bound by arithmetic, so a library does them: CUTLASS, one
// kernel for compute capability 9.0 (TMA, wgmma) and one for all others (cp.async, mma.sync). bf16 in, sums in float32.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string>

#include "core/cost.h"
#include "nextstep_rt/tensor.h"

namespace nsrt::cuda {

// Either y = x W^T + bias, rounded to bf16, or residual += x W^T + bias in float32.
struct GemmTask {
  const void* x = nullptr;      // [m, k]
  const void* w = nullptr;      // [n, k]
  const float* bias = nullptr;  // [n] or null
  void* y = nullptr;            // [m, n], or null
  float* residual = nullptr;    // [m, n], or null
  std::int32_t m = 0, n = 0, k = 0;
};

struct GemmLibrary;

// What multiplies on GPUs of this compute capability; null where the build has nothing.
const GemmLibrary* gemm_library(int major, int minor);
// "cutlass sm_90a", say; of null: what is done instead.
std::string gemm_name(const GemmLibrary* library);

struct GemmLaunch {
  const GemmLibrary* library = nullptr;
  DType weights = DType::kBFloat16;
  DType activations = DType::kBFloat16;
  int sm_count = 0;
  cudaStream_t stream = nullptr;
};

// Enqueues the product. It starts when all before it has ended. Throws InvalidRequest for shapes, dtypes and addresses
// that no kernel takes, Error where there is no library or the launch fails.
void gemm(const GemmTask& task, const GemmLaunch& launch);

Cost cost(const GemmTask& task);

}  // namespace nsrt::cuda
