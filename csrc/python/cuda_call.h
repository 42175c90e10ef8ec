// One op on a GPU's arrays: its device, its stream, what it reads and writes, and memory that lives until it has run.
#pragma once

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "cuda/ops/place/place.h"
#include "cuda/runtime.h"
#include "python/arrays.h"

namespace nsrt::python {

// Of a device that there is; remembered. Throws Error.
const cuda::DeviceTraits& traits_of(int device);

class CudaCall {
 public:
  // `first` is any of the op's arrays, `name` what messages call it: the op runs on its device. `stream` is a number as
  // in the DLPack protocol; None stands for the legacy default stream.
  CudaCall(py::handle first, const std::string& name, const py::object& stream);
  ~CudaCall();
  CudaCall(const CudaCall&) = delete;
  CudaCall& operator=(const CudaCall&) = delete;

  const cuda::DeviceTraits& traits() const { return traits_; }
  cudaStream_t stream() const { return stream_; }

  // A dense array on the call's device, at a multiple of 16 bytes, ready on its stream. Throws InvalidRequest.
  Array read(py::handle object, const std::string& name, std::initializer_list<Kind> kinds,
             const std::vector<std::int64_t>& shape) const;
  // float32, or null for None.
  Array read_optional(py::handle object, const std::string& name, const std::vector<std::int64_t>& shape) const;
  // The same, to be written, and apart from `inputs`.
  void* output(py::handle object, const std::string& name, std::initializer_list<Kind> kinds,
               const std::vector<std::int64_t>& shape, std::initializer_list<const Array*> inputs);

  // Memory in stream order.
  template <class T>
  T* scratch(std::size_t count) {
    return static_cast<T*>(allocate(count * sizeof(T)));
  }
  template <class T>
  T* zeros(std::size_t count) {
    T* p = scratch<T>(count);
    if (count > 0) cuda::check_cuda(cudaMemsetAsync(p, 0, count * sizeof(T), stream_), "clearing memory");
    return p;
  }
  // A copy of `values` on the device.
  template <class T>
  T* placed(std::span<const T> values) {
    static_assert(sizeof(T) % 4 == 0);
    std::vector<std::uint32_t> words(values.size_bytes() / 4);
    std::memcpy(words.data(), values.data(), values.size_bytes());
    T* p = scratch<T>(values.size());
    cuda::place_words(p, words, stream_);
    return p;
  }

 private:
  void* allocate(std::size_t bytes);

  int device_;
  cuda::DeviceScope scope_;
  cudaStream_t stream_;
  py::object dlpack_stream_;
  const cuda::DeviceTraits& traits_;
  std::vector<void*> scratch_;
  std::vector<py::object> written_;  // until the call ends
};

}  // namespace nsrt::python
