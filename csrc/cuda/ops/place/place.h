// Small tables (steps, pointers, scalars) that the host writes to device memory in stream order. They travel in the
// launch's arguments, so a recording keeps its own copy and no host memory has to outlive the call.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/cost.h"

namespace nsrt::cuda {

// `to` lies at a multiple of 4 bytes; so many are written. Throws Error where a launch fails.
void place_words(void* to, std::span<const std::uint32_t> words, cudaStream_t stream);

// The kernel behind it. What the runtime says of its code, it says of all kernels': they are compiled for the same
// GPUs.
const void* place_words_code();

Cost cost(std::span<const std::uint32_t> words);

}  // namespace nsrt::cuda
