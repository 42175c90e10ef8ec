// One function per group of names in nextstep_rt._core.
#pragma once

#include <pybind11/pybind11.h>

namespace nsrt::python {

void register_checkpoint(pybind11::module_& module);
void register_request(pybind11::module_& module);
void register_engine(pybind11::module_& module);
void register_ops(pybind11::module_& module);

}  // namespace nsrt::python
