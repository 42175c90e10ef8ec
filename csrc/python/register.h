// One function per group of names in nextstep_rt._core.
#pragma once

#include <pybind11/pybind11.h>

namespace nsrt::python {

// The loop calls this between tokens, without the GIL: takes it, lets Ctrl-C through, and calls `callback` unless it is
// None. Returns false when the callback did. Throws py::error_already_set.
template <class Call>
bool report(const pybind11::object& callback, Call call) {
  const pybind11::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
  if (callback.is_none()) return true;
  const pybind11::object answer = call();
  return !(answer.is(pybind11::bool_(false)));
}

void register_checkpoint(pybind11::module_& module);
void register_request(pybind11::module_& module);
void register_engine(pybind11::module_& module);
void register_ops(pybind11::module_& module);

}  // namespace nsrt::python
