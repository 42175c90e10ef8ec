// What stands behind gemm(): a library's kernels for some generation of GPUs. Each function below is defined once in a
// build: with CUTLASS (cutlass/), without it (absent/), or by what takes its place when kernels are emulated.
#pragma once

#include "cuda/ops/gemm/gemm.h"

namespace nsrt::cuda {

struct GemmLibrary {
  const char* name;
  // Of tasks that gemm() has checked.
  void (*store)(const GemmTask& task, const GemmLaunch& launch);
  void (*accumulate)(const GemmTask& task, const GemmLaunch& launch);
};

// Null where the build has none.
const GemmLibrary* gemm_sm90();  // for compute capability 9.0
const GemmLibrary* gemm_sm80();  // for all others, from 8.0 on

}  // namespace nsrt::cuda
