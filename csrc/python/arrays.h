// Arrays of any library in, numpy arrays out.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "nextstep_rt/tensor.h"

namespace nsrt::python {

namespace py = pybind11;

enum class Kind { kFloat32, kBFloat16, kInt32, kInt64, kBool };
const char* name_of(Kind kind);
std::size_t size_of(Kind kind);

// "[3, *]"; a dimension of -1 may be any.
std::string print_shape(const std::vector<std::int64_t>& shape);

// A dense, row-major array, borrowed from `owner` (or a copy that `owner` owns).
struct Array {
  const void* data = nullptr;
  Kind kind = Kind::kFloat32;
  std::vector<std::int64_t> shape;
  py::object owner;

  std::int64_t numel() const;
  const float* floats() const { return static_cast<const float*>(data); }
  // All elements; empty where there is no array. T is the kind's type.
  template <class T>
  std::span<const T> span() const {
    return {static_cast<const T*>(data), data ? static_cast<std::size_t>(numel()) : 0};
  }
  TensorView view() const;  // of a float array
};

// Reads a numpy array (ml_dtypes' bfloat16 too) or anything with __dlpack__, without copying where it is dense.
// `name` is for messages. Throws InvalidRequest when it is no array, of another dtype, or not in host memory.
Array read_array(py::handle object, const std::string& name);

// Throws InvalidRequest unless it is of one of the kinds and of that shape; a dimension of -1 may be any.
void check_array(const Array& array, const std::string& name, std::initializer_list<Kind> kinds,
                 const std::vector<std::int64_t>& shape);
// Both.
Array read_array(py::handle object, const std::string& name, std::initializer_list<Kind> kinds,
                 const std::vector<std::int64_t>& shape);
// The same for float32, or null for None.
Array read_optional(py::handle object, const std::string& name, const std::vector<std::int64_t>& shape);

// "float32" or "bfloat16"; throws InvalidRequest for another name.
DType dtype_from_name(const std::string& name);

// A new, uninitialised float32 array.
py::array_t<float> make_floats(const std::vector<std::int64_t>& shape);
py::array_t<float> to_numpy(const std::vector<float>& values, const std::vector<std::int64_t>& shape);

}  // namespace nsrt::python
