// Tensors taken over from other libraries, and handed to them, through DLPack.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "python/arrays.h"
#include "python/dlpack.h"

namespace nsrt::python {

// Lives as long as `owner`.
struct DlpackTensor {
  const DLTensor* tensor = nullptr;
  py::object owner;
};

// Asks `object` for its tensor, and for its data to be ready on `stream` (the protocol's number; None: not asked for).
// Throws InvalidRequest where it gives none.
DlpackTensor take_dlpack(py::handle object, const std::string& name, const py::object& stream = py::none());

// Nothing for dtypes that are not read here.
std::optional<Kind> kind_of(const DLDataType& type);
// Row-major, without gaps.
bool is_dense(const DLTensor& tensor);

struct DlpackExport {
  void* data = nullptr;
  Kind kind = Kind::kFloat32;
  std::vector<std::int64_t> shape;
  DLDevice device = {kDLCPU, 0};
  bool read_only = true;                   // said where the protocol version can say so
  std::vector<std::int64_t> strides = {};  // in elements; empty: dense, row-major
};

// A capsule that holds `owner` alive.
py::capsule export_dlpack(const DlpackExport& tensor, py::object owner, bool versioned);
// Whether a consumer with this `max_version` (a tuple or None) takes the versioned kind.
bool takes_versioned(const py::object& max_version);

// Memory of a GPU that is lent for the length of a call, where work on one stream makes and reads it: an object with
// __dlpack__ for consumers on that stream.
class LentArray {
 public:
  LentArray(DlpackExport tensor, std::int64_t stream) : tensor_(std::move(tensor)), stream_(stream) {}

  // Throws InvalidRequest for another stream, on which the data might not be there yet, and after end().
  py::capsule dlpack(py::object self, const py::object& stream, const py::object& max_version) const;
  const DlpackExport& tensor() const { return tensor_; }
  void end() { ended_ = true; }

 private:
  DlpackExport tensor_;
  std::int64_t stream_;
  bool ended_ = false;
};

}  // namespace nsrt::python
