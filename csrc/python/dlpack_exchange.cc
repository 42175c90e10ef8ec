#include "python/dlpack_exchange.h"

#include <cstring>
#include <memory>
#include <type_traits>

#include "core/check.h"

namespace nsrt::python {
namespace {

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

DLDataType type_of(Kind kind) {
  switch (kind) {
    case Kind::kFloat32:
      return {kDLFloat, 32, 1};
    case Kind::kBFloat16:
      return {kDLBfloat, 16, 1};
    case Kind::kInt32:
      return {kDLInt, 32, 1};
    case Kind::kInt64:
      return {kDLInt, 64, 1};
    case Kind::kBool:
      return {kDLBool, 8, 1};
  }
  return {};
}

// What an exported capsule owns: the protocol's struct, the numbers it points to, and the memory's owner.
template <class Managed>
struct Exported {
  Managed managed{};
  std::vector<std::int64_t> shape, strides;
  py::object owner;
};

template <class Managed>
py::capsule export_as(const DlpackExport& given, py::object owner, const char* name) {
  auto exported = std::make_unique<Exported<Managed>>();
  exported->shape = given.shape;
  exported->strides = given.strides;
  exported->owner = std::move(owner);
  DLTensor& t = exported->managed.dl_tensor;
  t.data = given.data;
  t.device = given.device;
  t.ndim = static_cast<std::int32_t>(given.shape.size());
  t.dtype = type_of(given.kind);
  t.shape = exported->shape.data();
  t.strides = given.strides.empty() ? nullptr : exported->strides.data();
  exported->managed.manager_ctx = exported.get();
  exported->managed.deleter = [](Managed* m) {
    const py::gil_scoped_acquire gil;
    delete static_cast<Exported<Managed>*>(m->manager_ctx);
  };
  if constexpr (std::is_same_v<Managed, DLManagedTensorVersioned>) {
    exported->managed.version = {1, 0};
    exported->managed.flags = given.read_only ? kDLFlagReadOnly : 0;
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

std::optional<Kind> kind_of(const DLDataType& t) {
  if (t.lanes != 1) return std::nullopt;
  if (t.code == kDLFloat && t.bits == 32) return Kind::kFloat32;
  if (t.code == kDLBfloat && t.bits == 16) return Kind::kBFloat16;
  if (t.code == kDLInt && t.bits == 32) return Kind::kInt32;
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

DlpackTensor take_dlpack(py::handle object, const std::string& name, const py::object& stream) {
  py::object made;
  try {
    made = stream.is_none() ? object.attr("__dlpack__")() : object.attr("__dlpack__")(py::arg("stream") = stream);
  } catch (const py::error_already_set& e) {
    // Ctrl-C and the like are not the array's fault.
    if (!e.matches(PyExc_Exception) || e.matches(PyExc_MemoryError)) throw;
    throw InvalidRequest(str(name, " cannot be read through DLPack: ", e.what()));
  }
  check<InvalidRequest>(py::isinstance<py::capsule>(made), name, " gave no capsule from __dlpack__");
  auto capsule = made.cast<py::capsule>();
  const std::string kind = capsule.name() ? capsule.name() : "";
  if (kind == "dltensor_versioned") {
    auto* managed = capsule.get_pointer<DLManagedTensorVersioned>();
    check<InvalidRequest>(managed->version.major == 1, name, " speaks DLPack ", managed->version.major,
                          "; this module reads version 1 and before");
    return {&managed->dl_tensor, take_over<DLManagedTensorVersioned>(capsule, "used_dltensor_versioned")};
  }
  check<InvalidRequest>(kind == "dltensor", name, " gave a capsule named '", kind, "', not a DLPack tensor");
  auto* managed = capsule.get_pointer<DLManagedTensor>();
  return {&managed->dl_tensor, take_over<DLManagedTensor>(capsule, "used_dltensor")};
}

py::capsule export_dlpack(const DlpackExport& tensor, py::object owner, bool versioned) {
  if (versioned) return export_as<DLManagedTensorVersioned>(tensor, std::move(owner), "dltensor_versioned");
  return export_as<DLManagedTensor>(tensor, std::move(owner), "dltensor");
}

bool takes_versioned(const py::object& max_version) {
  return !max_version.is_none() && max_version.cast<py::tuple>()[0].cast<int>() >= 1;
}

py::capsule LentArray::dlpack(py::object self, const py::object& stream, const py::object& max_version) const {
  check<InvalidRequest>(!ended_, "this array was lent for one call, which is over; copy what is to be kept");
  check<InvalidRequest>(stream.equal(py::int_(stream_)) || stream.equal(py::int_(-1)), "this array is ready on stream ",
                        stream_, " and was asked for on ", std::string(py::repr(stream)),
                        "; work on its stream, as under torch.cuda.stream(torch.cuda.ExternalStream(stream))");
  return export_dlpack(tensor_, std::move(self), takes_versioned(max_version));
}

}  // namespace nsrt::python
