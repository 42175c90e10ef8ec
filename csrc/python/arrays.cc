#include "python/arrays.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <sstream>

#include "core/check.h"
#include "python/dlpack_exchange.h"

namespace nsrt::python {

std::size_t size_of(Kind kind) {
  switch (kind) {
    case Kind::kFloat32:
      return 4;
    case Kind::kBFloat16:
      return 2;
    case Kind::kInt32:
      return 4;
    case Kind::kInt64:
      return 8;
    case Kind::kBool:
      return 1;
  }
  return 0;
}

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::kFloat32:
      return "float32";
    case Kind::kBFloat16:
      return "bfloat16";
    case Kind::kInt32:
      return "int32";
    case Kind::kInt64:
      return "int64";
    case Kind::kBool:
      return "bool";
  }
  return "?";
}

std::string print_shape(const std::vector<std::int64_t>& shape) {
  std::ostringstream text;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text << (i ? ", " : "[");
    if (shape[i] < 0)
      text << '*';
    else
      text << shape[i];
  }
  text << (shape.empty() ? "[]" : "]");
  return text.str();
}

namespace {

[[noreturn]] void wrong_dtype(const std::string& name, const std::string& dtype) {
  throw InvalidRequest(
      str(name, " has dtype ", dtype,
          ", which is not read here; convert it to float32 or bfloat16 (ids to int64, masks to bool)"));
}

Array read_numpy(const py::array& array, const std::string& name) {
  const std::string dtype = py::str(array.dtype());
  Array out;
  if (dtype == "float32")
    out.kind = Kind::kFloat32;
  else if (dtype == "bfloat16")
    out.kind = Kind::kBFloat16;
  else if (dtype == "int32")
    out.kind = Kind::kInt32;
  else if (dtype == "int64")
    out.kind = Kind::kInt64;
  else if (dtype == "bool")
    out.kind = Kind::kBool;
  else
    wrong_dtype(name, dtype);
  const py::object numpy = py::module_::import("numpy");
  // A dense, aligned array comes back as it is.
  const auto dense = numpy.attr("require")(array, py::none(), "CA").cast<py::array>();
  out.data = dense.data();
  out.shape.assign(dense.shape(), dense.shape() + dense.ndim());
  out.owner = dense;
  return out;
}

// Gathers a strided tensor, element by element; `out` is dense.
void gather(const DLTensor& t, std::size_t item, const std::byte* from, std::int32_t axis, std::byte*& out) {
  if (axis == t.ndim) {
    std::memcpy(out, from, item);
    out += item;
    return;
  }
  for (std::int64_t i = 0; i < t.shape[axis]; ++i)
    gather(t, item, from + i * t.strides[axis] * static_cast<std::int64_t>(item), axis + 1, out);
}

Array from_dl_tensor(const DLTensor& t, py::object owner, const std::string& name) {
  check<InvalidRequest>(t.device.device_type == kDLCPU || t.device.device_type == kDLCUDAHost, name,
                        " is on device type ", t.device.device_type, "; move it to the CPU first");
  const std::optional<Kind> kind = kind_of(t.dtype);
  if (!kind)
    wrong_dtype(name,
                str("(DLPack code ", static_cast<int>(t.dtype.code), ", ", static_cast<int>(t.dtype.bits), " bits)"));
  Array out;
  out.kind = *kind;
  out.shape.assign(t.shape, t.shape + t.ndim);
  const auto* data = static_cast<const std::byte*>(t.data) + t.byte_offset;
  const std::size_t item = size_of(*kind);
  if (is_dense(t) && reinterpret_cast<std::uintptr_t>(data) % item == 0) {
    out.data = data;
    out.owner = std::move(owner);
    return out;
  }
  auto copy = std::make_unique<std::byte[]>(static_cast<std::size_t>(out.numel()) * item);
  std::byte* end = copy.get();
  std::vector<std::int64_t> dense(out.shape.size(), 1);
  for (std::size_t i = dense.size(); i-- > 1;) dense[i - 1] = dense[i] * out.shape[i];
  DLTensor strided = t;
  if (!strided.strides) strided.strides = dense.data();
  if (out.numel() > 0) gather(strided, item, data, 0, end);
  out.data = copy.get();
  out.owner = py::capsule(copy.release(), [](void* p) { delete[] static_cast<std::byte*>(p); });
  return out;
}

}  // namespace

std::int64_t Array::numel() const {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

TensorView Array::view() const { return {data, kind == Kind::kBFloat16 ? DType::kBFloat16 : DType::kFloat32, shape}; }

Array read_array(py::handle object, const std::string& name) {
  if (py::isinstance<py::array>(object)) return read_numpy(object.cast<py::array>(), name);
  if (py::hasattr(object, "__dlpack__")) {
    DlpackTensor taken = take_dlpack(object, name);
    return from_dl_tensor(*taken.tensor, std::move(taken.owner), name);
  }
  throw InvalidRequest(str(name, " is a ", py::type::of(object).attr("__name__").cast<std::string>(),
                           "; give a numpy array or any array with __dlpack__"));
}

void check_array(const Array& array, const std::string& name, std::initializer_list<Kind> kinds,
                 const std::vector<std::int64_t>& shape) {
  if (std::find(kinds.begin(), kinds.end(), array.kind) == kinds.end()) {
    std::string wanted;
    for (const Kind kind : kinds) wanted += (wanted.empty() ? "" : " or ") + std::string(name_of(kind));
    throw InvalidRequest(str(name, " has dtype ", name_of(array.kind), "; it must be ", wanted));
  }
  bool fits = array.shape.size() == shape.size();
  for (std::size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] < 0 || shape[i] == array.shape[i];
  check<InvalidRequest>(fits, name, " has shape ", print_shape(array.shape), "; it must be ", print_shape(shape));
}

Array read_array(py::handle object, const std::string& name, std::initializer_list<Kind> kinds,
                 const std::vector<std::int64_t>& shape) {
  Array array = read_array(object, name);
  check_array(array, name, kinds, shape);
  return array;
}

Array read_optional(py::handle object, const std::string& name, const std::vector<std::int64_t>& shape) {
  if (object.is_none()) return {};
  return read_array(object, name, {Kind::kFloat32}, shape);
}

DType dtype_from_name(const std::string& name) {
  check<InvalidRequest>(name == "float32" || name == "bfloat16", "dtype is '", name, "'; use 'float32' or 'bfloat16'");
  return name == "float32" ? DType::kFloat32 : DType::kBFloat16;
}

py::array_t<float> make_floats(const std::vector<std::int64_t>& shape) {
  return py::array_t<float>(std::vector<py::ssize_t>(shape.begin(), shape.end()));
}

py::array_t<float> to_numpy(const std::vector<float>& values, const std::vector<std::int64_t>& shape) {
  py::array_t<float> out = make_floats(shape);
  std::copy(values.begin(), values.end(), out.mutable_data());
  return out;
}

}  // namespace nsrt::python
