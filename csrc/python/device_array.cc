// nextstep_rt._core.cuda.DeviceArray: memory of a GPU for those who have no library for that. It speaks DLPack.
#include <pybind11/stl.h>

#include <algorithm>

#include "core/bf16.h"
#include "core/check.h"
#include "python/cuda_call.h"
#include "python/dlpack_exchange.h"
#include "python/register.h"

namespace nsrt::python {
namespace {

std::size_t bytes_of(const std::vector<std::int64_t>& shape, Kind kind) {
  std::size_t count = 1;
  for (const std::int64_t n : shape) {
    check<InvalidRequest>(n >= 0, "a shape has no dimension of ", n);
    check<InvalidRequest>(n == 0 || count <= (std::size_t{1} << 48) / static_cast<std::size_t>(n), "an array of shape ",
                          print_shape(shape), " is too large");
    count *= static_cast<std::size_t>(n);
  }
  return count * size_of(kind);
}

Kind kind_from_name(const std::string& name) {
  for (const Kind kind : {Kind::kFloat32, Kind::kBFloat16, Kind::kInt32})
    if (name == name_of(kind)) return kind;
  throw InvalidRequest(str("dtype is '", name, "'; use 'float32', 'bfloat16' or 'int32'"));
}

// What the ops enqueue on a stream is not waited for; who reads an array elsewhere asks for that (see dlpack below).
class DeviceArray {
 public:
  // Uninitialised. Throws Error where the GPU has no room.
  DeviceArray(std::vector<std::int64_t> shape, Kind kind, int device)
      : shape_(std::move(shape)), kind_(kind), device_(device) {
    const std::size_t bytes = bytes_of(shape_, kind);
    traits_of(device);  // there is such a device
    const cuda::DeviceScope scope(device);
    memory_ = cuda::DeviceMemory(bytes, "an array");
  }

  void fill(const py::object& values) {
    const Array from = read_array(values, "values", {kind_}, shape_);
    const cuda::DeviceScope scope(device_);
    if (memory_.bytes() > 0)
      cuda::check_cuda(cudaMemcpy(memory_.data(), from.data, memory_.bytes(), cudaMemcpyHostToDevice), "a copy");
  }

  py::array to_numpy() const {
    wait();
    const cuda::DeviceScope scope(device_);
    const std::vector<py::ssize_t> shape(shape_.begin(), shape_.end());
    const std::size_t bytes = memory_.bytes();
    const auto copy = [&](void* to) {
      if (bytes > 0) cuda::check_cuda(cudaMemcpy(to, memory_.data(), bytes, cudaMemcpyDeviceToHost), "a copy");
    };
    if (kind_ == Kind::kBFloat16) {
      std::vector<std::uint16_t> halves(bytes / sizeof(std::uint16_t));
      copy(halves.data());
      py::array_t<float> out(shape);
      std::transform(halves.begin(), halves.end(), out.mutable_data(), bf16_to_float);
      return out;
    }
    py::array out(py::dtype(name_of(kind_)), shape);
    copy(out.mutable_data());
    return out;
  }

  py::capsule dlpack(py::object self, const py::object& stream, const py::object& max_version) const {
    // -1: the consumer will see to the order itself. Else all work is waited for, whatever stream it is on.
    if (stream.is_none() || !stream.equal(py::int_(-1))) wait();
    return export_dlpack(
        {.data = memory_.data(), .kind = kind_, .shape = shape_, .device = {kDLCUDA, device_}, .read_only = false},
        std::move(self), takes_versioned(max_version));
  }

  const std::vector<std::int64_t>& shape() const { return shape_; }
  std::string dtype() const { return name_of(kind_); }
  int device() const { return device_; }

 private:
  void wait() const {
    const cuda::DeviceScope scope(device_);
    const py::gil_scoped_release release;
    cuda::check_cuda(cudaDeviceSynchronize(), "the work on the GPU");
  }

  std::vector<std::int64_t> shape_;
  Kind kind_;
  int device_;
  cuda::DeviceMemory memory_;
};

}  // namespace

void register_device_array(py::module_& cuda) {
  py::class_<DeviceArray>(cuda, "DeviceArray")
      .def(py::init([](std::vector<std::int64_t> shape, const std::string& dtype, int device) {
             return std::make_unique<DeviceArray>(std::move(shape), kind_from_name(dtype), device);
           }),
           py::arg("shape"), py::arg("dtype"), py::arg("device") = 0)
      .def("fill", &DeviceArray::fill, py::arg("values"))
      .def("numpy", &DeviceArray::to_numpy)
      .def(
          "__dlpack__",
          [](const py::object& self, const py::object& stream, const py::object& max_version, const py::object&,
             const py::object&) { return self.cast<const DeviceArray&>().dlpack(self, stream, max_version); },
          py::kw_only(), py::arg("stream") = py::none(), py::arg("max_version") = py::none(),
          py::arg("dl_device") = py::none(), py::arg("copy") = py::none())
      .def("__dlpack_device__",
           [](const DeviceArray& self) { return std::pair(static_cast<int>(kDLCUDA), self.device()); })
      .def_property_readonly("shape", [](const DeviceArray& self) { return py::tuple(py::cast(self.shape())); })
      .def_property_readonly("dtype", &DeviceArray::dtype);
}

}  // namespace nsrt::python
