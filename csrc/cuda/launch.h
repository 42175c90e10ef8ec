// Launching a kernel: one call, checked.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

#include "core/check.h"

namespace nsrt::cuda {

// Throws Error naming what was tried, and saying so where no call will work any more.
void check_cuda(cudaError_t code, const char* what);

// At a multiple of 16 bytes, as the widest loads need it.
inline bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

struct LaunchShape {
  dim3 grid, block;
  std::size_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
  bool cooperative = false;
  bool overlaps = false;  // programmatic dependent launch: starts before the predecessor has ended
};

// `name` is for messages. Kernels that need more than 48 KB of shared memory are given it.
template <class... Expected, class... Actual>
void launch(const char* name, void (*kernel)(Expected...), const LaunchShape& shape, Actual&&... arguments) {
  if (shape.shared_bytes > 48 * 1024)
    check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(shape.shared_bytes)),
               name);
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (shape.cooperative) {
    attributes[count].id = cudaLaunchAttributeCooperative;
    attributes[count++].val.cooperative = 1;
  }
  if (shape.overlaps) {
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
