// The CUDA factory of a build without CUDA: same symbols, an honest answer.
#include "backend/backend.h"
#include "core/check.h"

namespace nsrt {

std::unique_ptr<Backend> make_cuda_backend(const ModelWeights&, DType, int device) {
  throw Error(str("device cuda:", device, " was asked for, but this library was built without CUDA; use device 'cpu'"));
}

bool built_with_cuda() { return false; }

std::vector<std::string> cuda_devices() { return {}; }

std::vector<std::string> cuda_prefill_products() { return {}; }

}  // namespace nsrt
