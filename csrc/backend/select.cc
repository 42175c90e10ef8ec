#include <charconv>

#include "backend/backend.h"
#include "core/check.h"

namespace nsrt {

std::unique_ptr<Backend> make_backend(const ModelWeights& weights, const std::string& device, DType compute,
                                      int threads) {
  const bool automatic = device == "auto";
  if (device == "cpu" || (automatic && cuda_devices().empty())) return make_cpu_backend(weights, compute, threads);
  if (device == "cuda" || automatic) return make_cuda_backend(weights, compute, 0);
  int index = -1;
  if (device.starts_with("cuda:")) {
    const char* end = device.data() + device.size();
    const auto [rest, error] = std::from_chars(device.data() + 5, end, index);
    if (error != std::errc() || rest != end) index = -1;
  }
  check<InvalidRequest>(index >= 0, "unknown device '", device, "'; use 'cpu', 'cuda', 'cuda:<index>' or 'auto'");
  return make_cuda_backend(weights, compute, index);
}

}  // namespace nsrt
