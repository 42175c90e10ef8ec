// The class `roofs`, a name space of static functions: what the machine allows, for the bench.
#include <string>

#include "cpu/roofs.h"
#include "python/arrays.h"
#include "python/native_call.h"
#include "python/register.h"

namespace nsrt::python {
namespace {

namespace py = pybind11;

struct Roofs {};

template <class F>
double measured(F&& f) {
  const NativeCall call;
  return f();
}

}  // namespace

void register_roofs(py::module_& module) {
  // A submodule would have stubs of its own.
  py::class_<Roofs> m(module, "roofs", "What this machine allows at most, measured with a team of threads.");
  m.def_static(
      "read_seconds",
      [](std::int64_t bytes, int threads) { return measured([&] { return cpu::read_seconds(bytes, threads); }); },
      py::arg("bytes"), py::arg("threads"),
      "Seconds in which the threads read an array of so many bytes once, having written it before.");
  m.def_static(
      "copy_seconds",
      [](std::int64_t bytes, int threads) { return measured([&] { return cpu::copy_seconds(bytes, threads); }); },
      py::arg("bytes"), py::arg("threads"), "Seconds in which they copy so many bytes to another array.");
  m.def_static(
      "peak_flops",
      [](const std::string& dtype, int threads) {
        const DType kind = dtype_from_name(dtype);
        return measured([&] { return cpu::peak_flops(kind, threads); });
      },
      py::arg("dtype"), py::arg("threads"),
      "Operations per second on registers alone, a multiply-add counting as two: float32, or bfloat16 for the dot\n"
      "product of pairs. InvalidRequest where the instruction set has none.");
  m.def_static(
      "barrier_seconds", [](int threads) { return measured([&] { return cpu::barrier_seconds(threads); }); },
      py::arg("threads"), "Seconds of one barrier among the threads of an engine's team.");
  m.def_static(
      "pool_wake_seconds", [](int threads) { return measured([&] { return cpu::pool_wake_seconds(threads); }); },
      py::arg("threads"), "Seconds to wake such a team for a task that does nothing, and to wait for it.");
}

}  // namespace nsrt::python
