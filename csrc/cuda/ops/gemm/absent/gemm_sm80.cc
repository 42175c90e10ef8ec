// A build without CUTLASS for GPUs other than those of compute capability 9.0.
#include "cuda/ops/gemm/library.h"

namespace nsrt::cuda {

const GemmLibrary* gemm_sm80() { return nullptr; }

}  // namespace nsrt::cuda
