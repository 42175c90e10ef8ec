// What the library calls: the same symbols as csrc/no_cuda.
#include "core/check.h"
#include "cuda/cuda_backend.h"
#include "cuda/ops/gemm/gemm.h"

namespace nsrt {

std::unique_ptr<Backend> make_cuda_backend(const ModelWeights& weights, DType compute, int device) {
  const cuda::DeviceTraits traits = cuda::device_traits(device);
  const cuda::DeviceScope scope(device);
  return std::make_unique<cuda::CudaBackend>(weights, compute, device, traits);
}

bool built_with_cuda() { return true; }

namespace {

// What f says of each GPU's properties; nothing where there is no driver.
template <class F>
std::vector<std::string> of_devices(F&& f) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return {};
  }
  std::vector<std::string> told;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp p;
    cuda::check_cuda(cudaGetDeviceProperties(&p, i), "asking for the GPU's traits");
    told.push_back(f(p));
  }
  return told;
}

}  // namespace

std::vector<std::string> cuda_devices() {
  return of_devices([](const cudaDeviceProp& p) {
    return str(p.name, ", sm_", p.major, p.minor, ", ", p.totalGlobalMem >> 30, " GiB");
  });
}

std::vector<std::string> cuda_prefill_products() {
  return of_devices([](const cudaDeviceProp& p) { return cuda::gemm_name(cuda::gemm_library(p.major, p.minor)); });
}

}  // namespace nsrt
