// A build without CUTLASS for compute capability 9.0.
#include "cuda/ops/gemm/library.h"

namespace nsrt::cuda {

const GemmLibrary* gemm_sm90() { return nullptr; }

}  // namespace nsrt::cuda
