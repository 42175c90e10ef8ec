#include "python/native_call.h"

#include <atomic>
#include <chrono>
#include <thread>

#include "core/check.h"

namespace nsrt::python {
namespace {

// Of the process, as the interpreter is.
std::atomic<int> running = 0;
std::atomic<bool> exiting = false;

void stop_and_wait() {
  exiting = true;
  const pybind11::gil_scoped_release release;
  while (running > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

}  // namespace

NativeCall::NativeCall() {
  check(!exiting, "the interpreter is exiting; no more work is begun");
  ++running;
  release_.emplace();
}

NativeCall::~NativeCall() {
  release_.reset();
  --running;
}

bool NativeCall::stopping() { return exiting; }

void NativeCall::register_exit_hook() {
  pybind11::module_::import("atexit").attr("register")(pybind11::cpp_function(&stop_and_wait));
}

}  // namespace nsrt::python
