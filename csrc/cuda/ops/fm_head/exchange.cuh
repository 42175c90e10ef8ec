// Blocks hand each other numbers in 8-byte words that hold a payload and the exchange's tag. A word is read and written
// whole, so a reader that sees the tag has the payload: one trip through L2, and no barrier.
//
// An exchange's buffer may be written again once every block has read it, and a block has read all of an exchange
// before it sends anything of the next. So where all blocks take part in every exchange (each has rows of d and of
// d_mlp), one buffer for each kind is enough, since kinds alternate. But only d_tok rows of velocity are sent: a block
// that sends none may still be reading the residual stream when input_proj already sends the next one. That kind has
// two buffers in turn.
#pragma once

#include "cuda/device/pack.cuh"
#include "cuda/device/ptx.cuh"

namespace nsrt::cuda {

// How many rows' values of one output share a word.
template <class T>
inline constexpr int kRowsPerWord = sizeof(T) == 2 ? 2 : 1;

template <class T>
__host__ __device__ constexpr int planes_of(int rows) {
  return (rows + kRowsPerWord<T> - 1) / kRowsPerWord<T>;
}

__device__ __forceinline__ std::uint64_t tagged(std::uint32_t tag, std::uint32_t payload) {
  return static_cast<std::uint64_t>(tag) << 32 | payload;
}

template <class T>
__device__ __forceinline__ std::uint32_t payload_of(float first, float second) {
  if constexpr (sizeof(T) == 2)
    return pack_bf16(first, second);
  else
    return __float_as_uint(first);
}

// The value of row `r` in a payload.
template <class T>
__device__ __forceinline__ float value_of(std::uint32_t payload, int r) {
  if constexpr (sizeof(T) == 2)
    return r % 2 == 0 ? low_float(payload) : high_float(payload);
  else
    return __uint_as_float(payload);
}

// Row `r` of four payloads, as numbers lie in memory.
template <class T>
__device__ __forceinline__ void store_row(T* to, const std::uint32_t (&payload)[4], int r) {
  if constexpr (sizeof(T) == 2) {
    const std::uint32_t select = r % 2 == 0 ? 0x5410 : 0x7632;  // the lower halves of both words, or the upper
    *reinterpret_cast<uint2*>(to) =
        make_uint2(__byte_perm(payload[0], payload[1], select), __byte_perm(payload[2], payload[3], select));
  } else {
    *reinterpret_cast<uint4*>(to) = make_uint4(payload[0], payload[1], payload[2], payload[3]);
  }
}

// Waits for kWords consecutive words, an even number, of one exchange.
template <int kWords>
__device__ __forceinline__ void receive(const std::uint64_t* words, std::uint32_t tag,
                                        std::uint32_t (&payload)[kWords]) {
  ulonglong2 pairs[kWords / 2];
  bool complete;
  do {
    complete = true;
#pragma unroll
    for (int i = 0; i < kWords / 2; ++i) pairs[i] = ptx::load_relaxed_2x64(words + 2 * i);
#pragma unroll
    for (int i = 0; i < kWords / 2; ++i)
      complete = complete && static_cast<std::uint32_t>(pairs[i].x >> 32) == tag &&
                 static_cast<std::uint32_t>(pairs[i].y >> 32) == tag;
  } while (!complete);
#pragma unroll
  for (int i = 0; i < kWords / 2; ++i) {
    payload[2 * i] = static_cast<std::uint32_t>(pairs[i].x);
    payload[2 * i + 1] = static_cast<std::uint32_t>(pairs[i].y);
  }
}

}  // namespace nsrt::cuda
