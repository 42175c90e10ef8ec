#include "python/cuda_call.h"

#include <map>
#include <mutex>

#include "core/check.h"
#include "python/dlpack_exchange.h"

namespace nsrt::python {
namespace {

constexpr std::int64_t kLegacyStream = 1;  // the protocol's number; 0 is ambiguous there and taken for the same

int device_of(py::handle object, const std::string& name) {
  check<InvalidRequest>(py::hasattr(object, "__dlpack_device__"), name, " is a ",
                        py::type::of(object).attr("__name__").cast<std::string>(),
                        "; give an array of a CUDA device with __dlpack__ and __dlpack_device__");
  const auto [type, index] = object.attr("__dlpack_device__")().cast<std::pair<int, int>>();
  check<InvalidRequest>(type == kDLCUDA, name, " is on device type ", type, "; move it to the GPU of the other arrays");
  return index;
}

std::int64_t stream_number(const py::object& stream) {
  if (stream.is_none()) return kLegacyStream;
  const auto number = stream.cast<std::int64_t>();
  check<InvalidRequest>(number >= 0, "stream is ", number, "; give a CUDA stream's address, or None");
  return number == 0 ? kLegacyStream : number;
}

cudaStream_t stream_handle(std::int64_t number) {
  return number == kLegacyStream ? nullptr : reinterpret_cast<cudaStream_t>(number);
}

bool overlap(const void* a, std::size_t a_bytes, const void* b, std::size_t b_bytes) {
  const auto first = reinterpret_cast<std::uintptr_t>(a), second = reinterpret_cast<std::uintptr_t>(b);
  return first < second + b_bytes && second < first + a_bytes;
}

}  // namespace

// Asking takes a millisecond; the answer does not change.
const cuda::DeviceTraits& traits_of(int device) {
  static std::mutex mutex;
  static std::map<int, cuda::DeviceTraits> known;
  const std::lock_guard lock(mutex);
  const auto it = known.find(device);
  return it != known.end() ? it->second : known.emplace(device, cuda::device_traits(device)).first->second;
}

CudaCall::CudaCall(py::handle first, const std::string& name, const py::object& stream)
    : device_(device_of(first, name)),
      scope_(device_),
      stream_(stream_handle(stream_number(stream))),
      dlpack_stream_(py::int_(stream_number(stream))),
      traits_(traits_of(device_)) {}

// In stream order too: behind the op, whose launches are all enqueued. What cannot be given back is left to the end of
// the process; that must not become the error of the next call.
CudaCall::~CudaCall() {
  for (void* p : scratch_)
    if (cudaFreeAsync(p, stream_) != cudaSuccess) cudaGetLastError();
}

Array CudaCall::read(py::handle object, const std::string& name, std::initializer_list<Kind> kinds,
                     const std::vector<std::int64_t>& shape) const {
  const int device = device_of(object, name);
  check<InvalidRequest>(device == device_, name, " is on cuda:", device, " and the op runs on cuda:", device_,
                        "; move it there");
  DlpackTensor taken = take_dlpack(object, name, dlpack_stream_);
  const DLTensor& t = *taken.tensor;
  const auto kind = kind_of(t.dtype);
  check<InvalidRequest>(kind.has_value(), name,
                        " has a dtype that is not read here; convert it to float32 or bfloat16");
  Array array;
  array.kind = *kind;
  array.shape.assign(t.shape, t.shape + t.ndim);
  array.owner = std::move(taken.owner);
  check_array(array, name, kinds, shape);
  check<InvalidRequest>(is_dense(t), name, " is strided; give a contiguous copy");
  array.data = static_cast<const std::byte*>(t.data) + t.byte_offset;
  check<InvalidRequest>(cuda::aligned(array.data), name, " begins at an address that is no multiple of 16 bytes; ",
                        "give a copy");
  return array;
}

Array CudaCall::read_optional(py::handle object, const std::string& name,
                              const std::vector<std::int64_t>& shape) const {
  return object.is_none() ? Array{} : read(object, name, {Kind::kFloat32}, shape);
}

void* CudaCall::output(py::handle object, const std::string& name, std::initializer_list<Kind> kinds,
                       const std::vector<std::int64_t>& shape, std::initializer_list<const Array*> inputs) {
  const Array array = read(object, name, kinds, shape);
  const std::size_t bytes = static_cast<std::size_t>(array.numel()) * size_of(array.kind);
  for (const Array* input : inputs)
    check<InvalidRequest>(
        !overlap(array.data, bytes, input->data, static_cast<std::size_t>(input->numel()) * size_of(input->kind)), name,
        " shares memory with an input; give an array of its own");
  written_.push_back(array.owner);
  return const_cast<void*>(array.data);
}

void* CudaCall::allocate(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  void* p = nullptr;
  cuda::check_room(cudaMallocAsync(&p, bytes, stream_), "an op's workspace", bytes);
  scratch_.push_back(p);
  return p;
}

}  // namespace nsrt::python
