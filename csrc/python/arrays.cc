#include "python/arrays.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <sstream>

#include "core/check.h"
#include "python/dlpack.h"

namespace nsrt::python {
namespace {

constexpr std::size_t size_of(Kind kind) {
  switch (kind) {
    case Kind::kFloat32:
      return 4;
    case Kind::kBFloat16:
      return 2;
    case Kind::kInt64:
      return 8;
    case Kind::kBool:
      return 1;
  }
  return 0;
}

const char* name_of_kind(Kind kind) {
  switch (kind) {
    case Kind::kFloat32:
      return "float32";
    case Kind::kBFloat16:
      return "bfloat16";
    case Kind::kInt64:
      return "int64";
    case Kind::kBool:
      return "bool";
  }
  return "?";
}

std::string print(const std::vector<std::int64_t>& shape) {
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

// Takes a capsule over, so that its tensor is freed with the last reference to the array.
template <class Managed>
py::capsule take_over(py::capsule& capsule, const char* used_name) {
  auto* managed = capsule.get_pointer<Managed>();
  capsule.set_name(used_name);
  return py::capsule(managed, [](void* p) {
    auto* m = static_cast<Managed*>(p);
    if (m->deleter) m->deleter(m);
  });
}

std::optional<Kind> kind_of(const DLDataType& t) {
  if (t.lanes != 1) return std::nullopt;
  if (t.code == kDLFloat && t.bits == 32) return Kind::kFloat32;
  if (t.code == kDLBfloat && t.bits == 16) return Kind::kBFloat16;
  if (t.code == kDLInt && t.bits == 64) return Kind::kInt64;
  if ((t.code == kDLBool || t.code == kDLUInt) && t.bits == 8) return Kind::kBool;
  return std::nullopt;
}

bool is_dense(const DLTensor& t) {
  std::int64_t expected = 1;
  for (std::int32_t i = t.ndim - 1; t.strides && i >= 0; --i) {
    if (t.shape[i] != 1 && t.strides[i] != expected) return false;
    expected *= t.shape[i];
  }
  return true;
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

Array read_dlpack(py::handle object, const std::string& name) {
  py::object made;
  try {
    made = object.attr("__dlpack__")();
  } catch (const py::error_already_set& e) {
    // Ctrl-C and the like are not the array's fault.
    if (!e.matches(PyExc_Exception) || e.matches(PyExc_MemoryError)) throw;
    throw InvalidRequest(str(name, " cannot be read through DLPack: ", e.what()));
  }
  check<InvalidRequest>(py::isinstance<py::capsule>(made), name, " gave no capsule from __dlpack__");
  auto capsule = made.cast<py::capsule>();
  const std::string kind = capsule.name() ? capsule.name() : "";
  if (kind == "dltensor_versioned") {
    const auto* managed = capsule.get_pointer<DLManagedTensorVersioned>();
    check<InvalidRequest>(managed->version.major == 1, name, " speaks DLPack ", managed->version.major,
                          "; this module reads version 1 and before");
    const DLTensor& t = managed->dl_tensor;
    return from_dl_tensor(t, take_over<DLManagedTensorVersioned>(capsule, "used_dltensor_versioned"), name);
  }
  check<InvalidRequest>(kind == "dltensor", name, " gave a capsule named '", kind, "', not a DLPack tensor");
  const DLTensor& t = capsule.get_pointer<DLManagedTensor>()->dl_tensor;
  return from_dl_tensor(t, take_over<DLManagedTensor>(capsule, "used_dltensor"), name);
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
  if (py::hasattr(object, "__dlpack__")) return read_dlpack(object, name);
  throw InvalidRequest(str(name, " is a ", py::type::of(object).attr("__name__").cast<std::string>(),
                           "; give a numpy array or any array with __dlpack__"));
}

Array read_array(py::handle object, const std::string& name, std::initializer_list<Kind> kinds,
                 const std::vector<std::int64_t>& shape) {
  Array array = read_array(object, name);
  if (std::find(kinds.begin(), kinds.end(), array.kind) == kinds.end()) {
    std::string wanted;
    for (const Kind kind : kinds) wanted += (wanted.empty() ? "" : " or ") + std::string(name_of_kind(kind));
    throw InvalidRequest(str(name, " has dtype ", name_of_kind(array.kind), "; it must be ", wanted));
  }
  bool fits = array.shape.size() == shape.size();
  for (std::size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] < 0 || shape[i] == array.shape[i];
  check<InvalidRequest>(fits, name, " has shape ", print(array.shape), "; it must be ", print(shape));
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

namespace {

// What an exported capsule owns: the protocol's struct, the shape it points to, and the memory's owner.
template <class Managed>
struct Exported {
  Managed managed{};
  std::vector<std::int64_t> shape;
  py::object owner;
};

template <class Managed>
py::capsule export_as(const TensorView& view, py::object owner, const char* name) {
  auto exported = std::make_unique<Exported<Managed>>();
  exported->shape = view.shape;
  exported->owner = std::move(owner);
  DLTensor& t = exported->managed.dl_tensor;
  t.data = const_cast<void*>(view.data);
  t.device = {kDLCPU, 0};
  t.ndim = static_cast<std::int32_t>(view.shape.size());
  t.dtype = view.dtype == DType::kBFloat16 ? DLDataType{kDLBfloat, 16, 1} : DLDataType{kDLFloat, 32, 1};
  t.shape = exported->shape.data();
  exported->managed.manager_ctx = exported.get();
  exported->managed.deleter = [](Managed* m) {
    const py::gil_scoped_acquire gil;
    delete static_cast<Exported<Managed>*>(m->manager_ctx);
  };
  if constexpr (std::is_same_v<Managed, DLManagedTensorVersioned>) {
    exported->managed.version = {1, 0};
    exported->managed.flags = kDLFlagReadOnly;
  }
  // Whoever consumes the capsule renames it; one that nobody took frees its tensor itself.
  PyObject* capsule = PyCapsule_New(&exported->managed, name, [](PyObject* self) {
    const char* current = PyCapsule_GetName(self);
    if (current == nullptr || std::strncmp(current, "used_", 5) == 0) return;
    auto* m = static_cast<Managed*>(PyCapsule_GetPointer(self, current));
    if (m) m->deleter(m);
  });
  if (!capsule) throw py::error_already_set();
  exported.release();
  return py::reinterpret_steal<py::capsule>(capsule);
}

}  // namespace

py::capsule export_dlpack(const TensorView& view, py::object owner, bool versioned) {
  if (versioned) return export_as<DLManagedTensorVersioned>(view, std::move(owner), "dltensor_versioned");
  return export_as<DLManagedTensor>(view, std::move(owner), "dltensor");
}

}  // namespace nsrt::python
