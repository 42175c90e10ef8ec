// What a build with CUDA says where there is no driver, and so no GPU: an Error, and the way out.
#include <cuda_runtime.h>

#include <cstdio>
#include <string>

#include "cuda/runtime.h"
#include "nextstep_rt/error.h"

int main() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0) {
    std::puts("this machine has a GPU: nothing to see");
    return 0;
  }
  try {
    nsrt::cuda::device_traits(0);
  } catch (const nsrt::Error& error) {
    const std::string said = error.what();
    std::puts(said.c_str());
    const bool good = said.starts_with("no CUDA device (") && said.ends_with("; use device 'cpu'");
    return good ? 0 : 1;
  }
  std::puts("FAILED: a device where there is none");
  return 1;
}
