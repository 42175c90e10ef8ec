#include "cuda/launch.h"

namespace nsrt::cuda {

void check_cuda(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // forget it, where it can be forgotten
  throw Error(str(what, " failed on the GPU: ", cudaGetErrorString(code), " (", cudaGetErrorName(code), ")"));
}

}  // namespace nsrt::cuda
