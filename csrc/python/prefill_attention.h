// Prefill's attention as a Python function: the engine's arrays are lent to it while it is called.
#pragma once

#include <pybind11/pybind11.h>

#include "nextstep_rt/engine.h"

namespace nsrt::python {

// `attention` is a function of (q, k, v, out, stream), or None for the engine's own kernel; register_engine.cc says
// what they are. Throws InvalidRequest for anything else.
void set_prefill_attention(Engine& self, const pybind11::object& attention);

}  // namespace nsrt::python
