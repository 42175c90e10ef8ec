// Launching a kernel: one call, checked.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "core/check.h"

namespace nsrt::cuda {

// Throws Error naming what was tried, and saying so where no call will work any more.
void check_cuda(cudaError_t code, const char* what);

// At a multiple of 16 bytes, as the widest loads need it.
inline bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

// A kernel on the current device.
struct KernelTraits {
  bool overlaps = false;         // its code has the instruction that pdl_wait() stands for
  std::size_t shared_limit = 0;  // bytes of dynamic shared memory that a launch may have
};

// Asks once for each kernel and device, and then raises what launches may have, to the limit: settings belong to the
// kernel, not to the launch, so setting them for each launch would be a race between engines. Throws Error.
KernelTraits prepare_kernel(const char* name, const void* kernel);
// What was set is asked for and set again: whoever resets a device takes it away.
void forget_kernels(int device);

struct LaunchShape {
  dim3 grid, block;
  std::size_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
  bool cooperative = false;
  bool overlaps = false;  // programmatic dependent launch, where it can: starts before the predecessor has ended
};

// `name` is for messages. Throws Error, InvalidRequest where the device has less shared memory than is asked for.
template <class... Expected, class... Actual>
void launch(const char* name, void (*kernel)(Expected...), const LaunchShape& shape, Actual&&... arguments) {
  const KernelTraits traits = prepare_kernel(name, reinterpret_cast<const void*>(kernel));
  check<InvalidRequest>(shape.shared_bytes <= traits.shared_limit, name, " needs ", shape.shared_bytes,
                        " bytes of shared memory, and a block of this GPU may have ", traits.shared_limit);
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (shape.cooperative) {
    attributes[count].id = cudaLaunchAttributeCooperative;
    attributes[count++].val.cooperative = 1;
  }
  if (shape.overlaps && traits.overlaps) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = shape.stream;
  config.attrs = attributes;
  config.numAttrs = count;
  check_cuda(cudaLaunchKernelEx(&config, kernel, std::forward<Actual>(arguments)...), name);
}

}  // namespace nsrt::cuda
