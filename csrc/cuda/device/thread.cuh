// Where the calling thread is in its block; blocks here have one dimension.
#pragma once

#include "cuda/device/platform.cuh"

namespace nsrt::cuda {

__device__ __forceinline__ int thread_index() { return static_cast<int>(threadIdx.x); }
__device__ __forceinline__ int warp_index() { return thread_index() / 32; }
__device__ __forceinline__ int lane_index() { return thread_index() % 32; }

}  // namespace nsrt::cuda
