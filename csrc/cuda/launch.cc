#include "cuda/launch.h"

namespace nsrt::cuda {

void check_cuda(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // forget it, where it can be forgotten
  const bool lost = cudaFree(nullptr) != cudaSuccess;
  throw Error(str(what, " failed on the GPU: ", cudaGetErrorString(code), " (", cudaGetErrorName(code), ")",
                  lost ? "; the GPU takes no more work from this process: start it again" : ""));
}

}  // namespace nsrt::cuda
