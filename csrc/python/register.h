// One function per group of names in nextstep_rt._core.
#pragma once

#include <pybind11/pybind11.h>

namespace nsrt::python {

void register_checkpoint(pybind11::module_& module);
void register_request(pybind11::module_& module);
void register_engine(pybind11::module_& module);
void register_ops(pybind11::module_& module);
void register_roofs(pybind11::module_& module);

// In builds with CUDA; the first makes the submodule nextstep_rt._core.cuda, to which the others add.
void register_cuda_ops(pybind11::module_& module);
void register_cuda_fm_ops(pybind11::module_& cuda);
void register_device_array(pybind11::module_& cuda);

}  // namespace nsrt::python
