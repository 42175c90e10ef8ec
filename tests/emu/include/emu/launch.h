// Launches, and the overloads that the toolkit's cuda_runtime.h adds to the C functions.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <tuple>
#include <utility>

namespace emu {

// A kernel with its arguments; run() is one device thread's call. Arguments are read behind the instrumentation's back:
// on a device they lie in constant memory.
class KernelCall {
 public:
  virtual ~KernelCall() = default;
  virtual void run() const = 0;
};

template <class... Parameters>
class KernelCallOf final : public KernelCall {
 public:
  template <class... Arguments>
  explicit KernelCallOf(void (*kernel)(Parameters...), Arguments&&... arguments)
      : kernel_(kernel), arguments_(std::forward<Arguments>(arguments)...) {}
  __attribute__((no_sanitize_thread)) void run() const override { call(std::index_sequence_for<Parameters...>()); }

 private:
  template <std::size_t... I>
  __attribute__((no_sanitize_thread)) void call(std::index_sequence<I...>) const {
    kernel_(std::get<I>(arguments_)...);
  }

  void (*kernel_)(Parameters...);
  std::tuple<Parameters...> arguments_;
};

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, std::shared_ptr<const KernelCall> call);

}  // namespace emu

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  return emu::launch(
      *config, reinterpret_cast<const void*>(kernel),
      std::make_shared<const emu::KernelCallOf<Parameters...>>(kernel, std::forward<Arguments>(arguments)...));
}

template <class T>
cudaError_t cudaMalloc(T** pointer, std::size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(pointer), bytes);
}
template <class T>
cudaError_t cudaMallocHost(T** pointer, std::size_t bytes) {
  return cudaMallocHost(reinterpret_cast<void**>(pointer), bytes);
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel* kernel, int threads,
                                                          std::size_t dynamic_bytes) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, reinterpret_cast<const void*>(kernel), threads,
                                                       dynamic_bytes);
}
