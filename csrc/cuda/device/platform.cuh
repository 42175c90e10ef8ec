// What differs between a GPU and the CPU that emulates one (tests/emu): shared memory. Kernels declare theirs only so.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <type_traits>

#ifndef NSRT_EMULATED
#define NSRT_EMULATED 0
#endif

// NSRT_SHARED(name, type...): a variable of the block. NSRT_DYNAMIC_SHARED(name): the launch's dynamic bytes.
#if NSRT_EMULATED
#define NSRT_SHARED(name, ...)                                   \
  static const char name##_tag = 0;                              \
  auto& name = *static_cast<std::type_identity_t<__VA_ARGS__>*>( \
      ::emu::static_shared(&name##_tag, sizeof(__VA_ARGS__), alignof(__VA_ARGS__), #name))
#define NSRT_DYNAMIC_SHARED(name) unsigned char* name = ::emu::dynamic_shared()
#else
#define NSRT_SHARED(name, ...) __shared__ std::type_identity_t<__VA_ARGS__> name
#define NSRT_DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#endif

namespace nsrt::cuda {

// Arrays lie in dynamic shared memory one after the other. The host adds up their bytes with SharedSize, the kernel
// takes the same arrays in the same order from a SharedCarver.
class SharedSize {
 public:
  template <class T>
  __host__ __device__ constexpr void add(std::size_t count, std::size_t alignment = 16) {
    place(count * sizeof(T), alignment);
  }
  __host__ __device__ constexpr std::size_t bytes() const { return end_; }

 protected:
  __host__ __device__ constexpr std::size_t place(std::size_t bytes, std::size_t alignment) {
    const std::size_t begin = (end_ + alignment - 1) / alignment * alignment;
    end_ = begin + bytes;
    return begin;
  }

 private:
  std::size_t end_ = 0;
};

class SharedCarver : private SharedSize {
 public:
  // `block` is what NSRT_DYNAMIC_SHARED declared.
  __device__ __forceinline__ explicit SharedCarver(unsigned char* block) : block_(block) {}
  template <class T>
  __device__ __forceinline__ T* take(std::size_t count, std::size_t alignment = 16) {
    const std::size_t begin = place(count * sizeof(T), alignment);
#if NSRT_EMULATED
    return static_cast<T*>(::emu::carve_shared(block_, begin, count * sizeof(T), alignment));
#else
    return reinterpret_cast<T*>(block_ + begin);
#endif
  }
  using SharedSize::bytes;

 private:
  unsigned char* block_;
};

}  // namespace nsrt::cuda
