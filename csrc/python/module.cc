// nextstep_rt._core
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "cpu/isa.h"
#include "nextstep_rt/engine.h"
#include "nextstep_rt/error.h"
#include "nextstep_rt/version.h"
#include "python/native_call.h"
#include "python/register.h"

namespace nsrt::python {
namespace {

namespace py = pybind11;

// The classes of nextstep_rt/errors.py; held for the life of the process.
struct Exceptions {
  PyObject *error, *checkpoint, *invalid, *cancelled;
};
Exceptions exceptions;

void register_exceptions() {
  const py::module_ errors = py::module_::import("nextstep_rt.errors");
  const auto find = [&](const char* name) { return py::object(errors.attr(name)).release().ptr(); };
  exceptions = {find("Error"), find("CheckpointError"), find("InvalidRequest"), find("Cancelled")};
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

std::map<std::string, std::string> build_info() {
  std::map<std::string, std::string> info;
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
  info["cuda"] = !built_with_cuda() ? "not built" : cuda_devices().empty() ? "no device" : "on";
  // A machine's GPUs are of one kind, as a rule; where they are not, each is told of.
  std::vector<std::string> products = cuda_prefill_products();
  products.erase(std::unique(products.begin(), products.end()), products.end());
  for (const std::string& name : products) info["cuda_prefill"] += (info["cuda_prefill"].empty() ? "" : ", ") + name;
  return info;
}

}  // namespace
}  // namespace nsrt::python

PYBIND11_MODULE(_core, m) {
  namespace py = pybind11;
  m.doc() = "The native runtime of nextstep_rt.";
  m.attr("__version__") = NSRT_VERSION_STRING;
  nsrt::python::register_exceptions();
  nsrt::python::NativeCall::register_exit_hook();
  m.def("build_info", &nsrt::python::build_info, "Compiler and features of this build.");
  m.def("isa_levels", &nsrt::cpu::isa_levels, "Instruction set levels this machine can run, best first.");
  m.def(
      "isa", [] { return std::string(nsrt::cpu::kernels().name); },
      "The level in use: the best one, or that of the environment variable NSRT_ISA.");
  m.def("cuda_devices", &nsrt::cuda_devices, "The GPUs by index: name, architecture, memory. Empty without CUDA.");
  m.def("available_memory", &nsrt::available_memory,
        "Bytes the machine can still give this process; 0 where it cannot be told.");
  nsrt::python::register_checkpoint(m);
  nsrt::python::register_request(m);
  nsrt::python::register_engine(m);
  nsrt::python::register_ops(m);
  nsrt::python::register_roofs(m);
#ifdef NSRT_WITH_CUDA
  nsrt::python::register_cuda_ops(m);
#endif
}
