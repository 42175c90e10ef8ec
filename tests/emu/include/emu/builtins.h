// The device language's built-in variables, barriers and warp operations.
#pragma once

#include "emu/core.h"

#define threadIdx (::emu::position().thread)
#define blockIdx (::emu::position().block)
inline constexpr int warpSize = 32;
// No macros: members of cudaLaunchConfig_t have these names too.
extern dim3 gridDim, blockDim;

#define NSRT_EMU_CALLER const ::emu::Caller& caller = ::emu::Caller::current()

inline void __syncthreads(NSRT_EMU_CALLER) { emu::block_barrier(0, emu::Vote::any, caller); }
inline int __syncthreads_or(int predicate, NSRT_EMU_CALLER) {
  return emu::block_barrier(predicate, emu::Vote::any, caller);
}
inline int __syncthreads_and(int predicate, NSRT_EMU_CALLER) {
  return emu::block_barrier(predicate, emu::Vote::all, caller);
}
inline int __syncthreads_count(int predicate, NSRT_EMU_CALLER) {
  return emu::block_barrier(predicate, emu::Vote::count, caller);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, NSRT_EMU_CALLER) { emu::warp_barrier(mask, caller); }

// ---- shuffles: lanes form segments of `width`; a source outside of one's segment is oneself

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, NSRT_EMU_CALLER) {
  const unsigned last = static_cast<unsigned>(width) - 1, segment = emu::position().lane & ~last;
  emu::shuffle(mask, "__shfl_sync", &value, sizeof(T), segment + (static_cast<unsigned>(source) & last), caller);
  return value;
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, NSRT_EMU_CALLER) {
  const unsigned lane = emu::position().lane, source = lane ^ static_cast<unsigned>(lanes);
  const unsigned end = (lane & ~(static_cast<unsigned>(width) - 1)) + static_cast<unsigned>(width);
  emu::shuffle(mask, "__shfl_xor_sync", &value, sizeof(T), source < end ? source : lane, caller);
  return value;
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, NSRT_EMU_CALLER) {
  const unsigned lane = emu::position().lane, source = lane + delta;
  const unsigned end = (lane & ~(static_cast<unsigned>(width) - 1)) + static_cast<unsigned>(width);
  emu::shuffle(mask, "__shfl_down_sync", &value, sizeof(T), source < end ? source : lane, caller);
  return value;
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, NSRT_EMU_CALLER) {
  const unsigned lane = emu::position().lane, in_segment = lane & (static_cast<unsigned>(width) - 1);
  emu::shuffle(mask, "__shfl_up_sync", &value, sizeof(T), in_segment >= delta ? lane - delta : lane, caller);
  return value;
}

// ---- votes and reductions

inline unsigned __ballot_sync(unsigned mask, int predicate, NSRT_EMU_CALLER) {
  return emu::reduce(mask, emu::Reduction::bits_or, predicate ? 1u << emu::position().lane : 0u, caller);
}
inline int __any_sync(unsigned mask, int predicate, NSRT_EMU_CALLER) {
  return __ballot_sync(mask, predicate, caller) != 0;
}
inline int __all_sync(unsigned mask, int predicate, NSRT_EMU_CALLER) {
  return __ballot_sync(mask, predicate, caller) == mask;
}
inline unsigned __activemask() { return emu::live_lanes(); }

inline unsigned __reduce_add_sync(unsigned mask, unsigned value, NSRT_EMU_CALLER) {
  return emu::reduce(mask, emu::Reduction::sum, value, caller);
}
inline int __reduce_add_sync(unsigned mask, int value, NSRT_EMU_CALLER) {
  return static_cast<int>(emu::reduce(mask, emu::Reduction::sum, static_cast<unsigned>(value), caller));
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value, NSRT_EMU_CALLER) {
  return emu::reduce(mask, emu::Reduction::smallest_unsigned, value, caller);
}
inline int __reduce_min_sync(unsigned mask, int value, NSRT_EMU_CALLER) {
  return static_cast<int>(emu::reduce(mask, emu::Reduction::smallest, static_cast<unsigned>(value), caller));
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, NSRT_EMU_CALLER) {
  return emu::reduce(mask, emu::Reduction::largest_unsigned, value, caller);
}
inline int __reduce_max_sync(unsigned mask, int value, NSRT_EMU_CALLER) {
  return static_cast<int>(emu::reduce(mask, emu::Reduction::largest, static_cast<unsigned>(value), caller));
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, NSRT_EMU_CALLER) {
  return emu::reduce(mask, emu::Reduction::bits_or, value, caller);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, NSRT_EMU_CALLER) {
  return emu::reduce(mask, emu::Reduction::bits_and, value, caller);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, NSRT_EMU_CALLER) {
  return emu::reduce(mask, emu::Reduction::bits_xor, value, caller);
}

// ---- the rest

inline void __threadfence() { emu::fence(); }
inline void __threadfence_block() { emu::fence(); }
inline void __threadfence_system() { emu::fence(); }
inline void __nanosleep(unsigned) { emu::pause("__nanosleep"); }
[[noreturn]] inline void __trap() { emu::trap(); }
