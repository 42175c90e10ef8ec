// nextstep_rt._core
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "backend/backend.h"
#include "cpu/isa.h"
#include "nextstep_rt/engine.h"
#include "nextstep_rt/error.h"
#include "nextstep_rt/version.h"
#include "python/register.h"

namespace nsrt::python {
namespace {

namespace py = pybind11;

// Owned by the module for the life of the process.
struct Exceptions {
  PyObject *error, *checkpoint, *invalid, *cancelled;
};
Exceptions exceptions;

PyObject* add_exception(py::module_& m, const char* name, const char* doc, const py::tuple& bases) {
  const std::string full = std::string("nextstep_rt.") + name;
  PyObject* type = PyErr_NewExceptionWithDoc(full.c_str(), doc, bases.ptr(), nullptr);
  if (!type) throw py::error_already_set();
  m.add_object(name, py::reinterpret_borrow<py::object>(type));
  return type;
}

void register_exceptions(py::module_& m) {
  const auto type = [](PyObject* p) { return py::reinterpret_borrow<py::object>(p); };
  exceptions.error =
      add_exception(m, "Error", "Base of all errors of nextstep_rt.", py::make_tuple(type(PyExc_RuntimeError)));
  exceptions.checkpoint =
      add_exception(m, "CheckpointError", "The checkpoint cannot be used.", py::make_tuple(type(exceptions.error)));
  exceptions.invalid = add_exception(m, "InvalidRequest", "The request is impossible; correct it and send it again.",
                                     py::make_tuple(type(exceptions.error), type(PyExc_ValueError)));
  exceptions.cancelled = add_exception(m, "Cancelled", "A callback stopped the engine before it had a result.",
                                       py::make_tuple(type(exceptions.error)));
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const CheckpointError& e) {
      PyErr_SetString(exceptions.checkpoint, e.what());
    } catch (const InvalidRequest& e) {
      PyErr_SetString(exceptions.invalid, e.what());
    } catch (const Cancelled& e) {
      PyErr_SetString(exceptions.cancelled, e.what());
    } catch (const Error& e) {
      PyErr_SetString(exceptions.error, e.what());
    }
  });
}

py::dict build_info() {
  py::dict info;
  info["version"] = NSRT_VERSION_STRING;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
#if defined(__OPTIMIZE__)
  info["build"] = "optimized";
#else
  info["build"] = "debug";
#endif
  info["cuda"] = cuda_device_count() > 0 ? "on" : "off";
  return info;
}

}  // namespace
}  // namespace nsrt::python

PYBIND11_MODULE(_core, m) {
  namespace py = pybind11;
  m.doc() = "The native runtime of nextstep_rt.";
  m.attr("__version__") = NSRT_VERSION_STRING;
  nsrt::python::register_exceptions(m);
  m.def("build_info", &nsrt::python::build_info, "Compiler and features of this build.");
  m.def("isa_levels", &nsrt::cpu::isa_levels, "Instruction set levels this machine can run, best first.");
  m.def(
      "isa", [] { return std::string(nsrt::cpu::kernels().name); },
      "The level in use: the best one, or that of the environment variable NSRT_ISA.");
  m.def("available_memory", &nsrt::available_memory,
        "Bytes the machine can still give this process; 0 where it cannot be told.");
  nsrt::python::register_checkpoint(m);
  nsrt::python::register_request(m);
  nsrt::python::register_engine(m);
  nsrt::python::register_ops(m);
}
