// Numbers in memory and in registers: bf16 is the upper half of a float32, so widening is a shift.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "cuda/device/platform.cuh"

namespace nsrt::cuda {

using bf16 = __nv_bfloat16;

__device__ __forceinline__ float low_float(std::uint32_t two) { return __uint_as_float(two << 16); }
__device__ __forceinline__ float high_float(std::uint32_t two) { return __uint_as_float(two & 0xffff0000u); }

// Two floats rounded to nearest even; `low` is first in memory.
__device__ __forceinline__ std::uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  std::uint32_t bits;
  memcpy(&bits, &both, sizeof bits);
  return bits;
}

template <class T>
__device__ __forceinline__ T rounded(float x) {
  if constexpr (std::is_same_v<T, float>)
    return x;
  else
    return __float2bfloat16_rn(x);
}

__device__ __forceinline__ float widened(float x) { return x; }
__device__ __forceinline__ float widened(bf16 x) { return __bfloat162float(x); }

// Eight consecutive numbers, 16-byte aligned, that an earlier kernel may have written.
__device__ __forceinline__ void load8(const bf16* p, float (&x)[8]) {
  const uint4 raw = *reinterpret_cast<const uint4*>(p);
  const std::uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = low_float(words[i]);
    x[2 * i + 1] = high_float(words[i]);
  }
}
__device__ __forceinline__ void load8(const float* p, float (&x)[8]) {
  const float4 a = *reinterpret_cast<const float4*>(p), b = *reinterpret_cast<const float4*>(p + 4);
  x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w;
  x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}

// Four numbers as they lie in memory: of 8 or 16 bytes, aligned to that.
template <class T>
struct Raw4 {
  std::uint32_t words[sizeof(T)];

  __device__ __forceinline__ static Raw4 at(const T* p) {
    if constexpr (sizeof(T) == 2) {
      const uint2 raw = *reinterpret_cast<const uint2*>(p);
      return {{raw.x, raw.y}};
    } else {
      const uint4 raw = *reinterpret_cast<const uint4*>(p);
      return {{raw.x, raw.y, raw.z, raw.w}};
    }
  }
  __device__ __forceinline__ void unpack(float (&x)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (sizeof(T) == 2)
        x[i] = i % 2 == 0 ? low_float(words[i / 2]) : high_float(words[i / 2]);
      else
        x[i] = __uint_as_float(words[i]);
    }
  }
};

__device__ __forceinline__ void store4(bf16* p, const float (&x)[4]) {
  *reinterpret_cast<uint2*>(p) = make_uint2(pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3]));
}
__device__ __forceinline__ void store4(float* p, const float (&x)[4]) {
  *reinterpret_cast<float4*>(p) = make_float4(x[0], x[1], x[2], x[3]);
}

__device__ __forceinline__ float silu(float x) { return x / (1.0f + __expf(-x)); }

}  // namespace nsrt::cuda
