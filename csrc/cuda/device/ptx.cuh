// All inline assembly. Each function says the same twice: in PTX, and by a call of the emulator (tests/emu) that also
// checks what hardware leaves undefined.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/device/platform.cuh"

#if NSRT_EMULATED
#define NSRT_PTX_CALLER , const ::emu::Caller& caller = ::emu::Caller::current()
#else
#define NSRT_PTX_CALLER
#endif

namespace nsrt::cuda::ptx {

// ---- weights: read once, constant while the kernel runs and while those run that it may overlap with

// 16 bytes, aligned, past L1.
__device__ __forceinline__ uint4 load_weights(const void* address) {
#if NSRT_EMULATED
  ::emu::check_constant(address, sizeof(uint4));
  return *static_cast<const uint4*>(address);
#else
  uint4 x;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "l"(address));
  return x;
#endif
}

// The same with a policy for L2 from one of the two below.
__device__ __forceinline__ uint4 load_weights(const void* address, [[maybe_unused]] std::uint64_t policy) {
#if NSRT_EMULATED
  return load_weights(address);
#else
  uint4 x;
  asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "l"(address), "l"(policy));
  return x;
#endif
}

// Keeps that fraction of the lines longer than others.
__device__ __forceinline__ std::uint64_t policy_evict_last([[maybe_unused]] float fraction) {
  std::uint64_t policy = 0;
#if !NSRT_EMULATED
  asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, %1;" : "=l"(policy) : "f"(fraction));
#endif
  return policy;
}

// Lets lines go first.
__device__ __forceinline__ std::uint64_t policy_evict_first() {
  std::uint64_t policy = 0;
#if !NSRT_EMULATED
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
#endif
  return policy;
}

__device__ __forceinline__ void prefetch_l2([[maybe_unused]] const void* address) {
#if !NSRT_EMULATED
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
#endif
}

// ---- asynchronous copies to shared memory

// 16 bytes, both sides aligned; L2 fetches the 256 around them, which the caller's next copies will ask for. Visible to
// the caller after the wait, to others after a barrier that follows it.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global) {
#if NSRT_EMULATED
  ::emu::copy_async(shared, global, 16);
#else
  const auto destination = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16;" ::"r"(destination), "l"(global) : "memory");
#endif
}

// Closes the group of the copies since the last call.
__device__ __forceinline__ void cp_async_commit() {
#if NSRT_EMULATED
  ::emu::commit_copies();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Until all but the newest N groups have landed.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
#if NSRT_EMULATED
  ::emu::wait_for_copies(N);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// ---- tensor cores

// d += a * b for a warp: a 16x16 by rows, b 16x8 by columns, in the fragments of mma.m16n8k16.
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                                                  const std::uint32_t (&b)[2] NSRT_PTX_CALLER) {
#if NSRT_EMULATED
  ::emu::multiply_tiles_bf16(d, a, b, caller);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// ---- accesses of global memory that order others, among all threads of the GPU

__device__ __forceinline__ std::uint32_t load_acquire(const std::uint32_t* address) {
#if NSRT_EMULATED
  return static_cast<std::uint32_t>(::emu::ordered_load(address, 4, ::emu::Order::acquire));
#else
  std::uint32_t x;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(x) : "l"(address) : "memory");
  return x;
#endif
}

__device__ __forceinline__ std::uint32_t load_relaxed(const std::uint32_t* address) {
#if NSRT_EMULATED
  return static_cast<std::uint32_t>(::emu::ordered_load(address, 4, ::emu::Order::relaxed));
#else
  std::uint32_t x;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(x) : "l"(address) : "memory");
  return x;
#endif
}

__device__ __forceinline__ void store_release(std::uint32_t* address, std::uint32_t x) {
#if NSRT_EMULATED
  ::emu::ordered_store(address, 4, x, ::emu::Order::release);
#else
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(address), "r"(x) : "memory");
#endif
}

__device__ __forceinline__ void add_release(std::uint32_t* address, std::uint32_t x) {
#if NSRT_EMULATED
  ::emu::update(address, ::emu::Order::release, [=](std::uint32_t old) { return old + x; });
#else
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(address), "r"(x) : "memory");
#endif
}

// Returns what was there.
__device__ __forceinline__ std::uint32_t add_acq_rel(std::uint32_t* address, std::uint32_t x) {
#if NSRT_EMULATED
  return ::emu::update(address, ::emu::Order::acquire_release, [=](std::uint32_t old) { return old + x; });
#else
  std::uint32_t old;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;" : "=r"(old) : "l"(address), "r"(x) : "memory");
  return old;
#endif
}

// Eight bytes are read and written whole: a word that holds its data and the tag that says so needs no other order.
__device__ __forceinline__ std::uint64_t load_relaxed_64(const std::uint64_t* address) {
#if NSRT_EMULATED
  return ::emu::ordered_load(address, 8, ::emu::Order::relaxed);
#else
  std::uint64_t x;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(x) : "l"(address) : "memory");
  return x;
#endif
}

__device__ __forceinline__ void store_relaxed_64(std::uint64_t* address, std::uint64_t x) {
#if NSRT_EMULATED
  ::emu::ordered_store(address, 8, x, ::emu::Order::relaxed);
#else
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(address), "l"(x) : "memory");
#endif
}

// Two such words, 16-byte aligned; each is whole, the pair is not.
__device__ __forceinline__ ulonglong2 load_relaxed_2x64(const void* address) {
#if NSRT_EMULATED
  const auto [x, y] = ::emu::ordered_load_pair(address);
#else
  unsigned long long x, y;
  asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(x), "=l"(y) : "l"(address) : "memory");
#endif
  return make_ulonglong2(x, y);
}

__device__ __forceinline__ void fence_acq_rel() {
#if NSRT_EMULATED
  ::emu::fence();
#else
  asm volatile("fence.acq_rel.gpu;" ::: "memory");
#endif
}

// ---- programmatic dependent launch

// Until the kernels before this one in the stream have ended. Every thread must come here; until then it may only read
// what no kernel of the stream writes. Code for older GPUs has no such instruction; a launch of it does not overlap
// (launch.h).
__device__ __forceinline__ void pdl_wait() {
#if NSRT_EMULATED
  ::emu::wait_for_dependencies();
#elif __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next kernel of the stream start, up to its pdl_wait(), once any thread of each block has come here or the
// block has ended. It may come before this kernel's own wait: the next one's wait is for this one's end.
__device__ __forceinline__ void pdl_launch_dependents() {
#if !NSRT_EMULATED && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace nsrt::cuda::ptx

#undef NSRT_PTX_CALLER
