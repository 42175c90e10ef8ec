// Sums in a fixed order.
#pragma once

#include "cuda/device/platform.cuh"

namespace nsrt::cuda {

// Of one number a lane; every lane gets it.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

}  // namespace nsrt::cuda
