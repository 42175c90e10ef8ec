// What the library calls: the same symbols as csrc/no_cuda.
#include "core/check.h"
#include "cuda/cuda_backend.h"

namespace nsrt {

std::unique_ptr<Backend> make_cuda_backend(const ModelWeights& weights, DType compute, int device) {
  const cuda::DeviceTraits traits = cuda::device_traits(device);
  const cuda::DeviceScope scope(device);
  return std::make_unique<cuda::CudaBackend>(weights, compute, device, traits);
}

bool built_with_cuda() { return true; }

std::vector<std::string> cuda_devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return {};
  }
  std::vector<std::string> devices;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp p;
    cuda::check_cuda(cudaGetDeviceProperties(&p, i), "asking for the GPU's traits");
    devices.push_back(str(p.name, ", sm_", p.major, p.minor, ", ", p.totalGlobalMem >> 30, " GiB"));
  }
  return devices;
}

}  // namespace nsrt
