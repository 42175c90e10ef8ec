// Long native work under Python: the GIL is released, Ctrl-C and callbacks get through between tokens, and the
// interpreter does not go away underneath it.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <string_view>

namespace nsrt::python {

// Releases the GIL for its lifetime. A thread that takes the GIL back from a dying interpreter is ended by force, which
// C++ frames do not survive; so at exit the interpreter first stops the running calls and waits for them. Throws Error
// when that has begun.
class NativeCall {
 public:
  NativeCall();
  ~NativeCall();
  NativeCall(const NativeCall&) = delete;
  NativeCall& operator=(const NativeCall&) = delete;

  // True from the beginning of the interpreter's exit on: stop at the next token.
  static bool stopping();
  // Has the interpreter wait at its exit. Called once, on import.
  static void register_exit_hook();

 private:
  std::optional<pybind11::gil_scoped_release> release_;
};

// False itself, or numpy's; nothing else that a callback may happen to return means "stop".
inline bool says_stop(const pybind11::object& answer) {
  if (answer.is(pybind11::bool_(false))) return true;
  return std::string_view(Py_TYPE(answer.ptr())->tp_name).starts_with("numpy.bool") && !pybind11::bool_(answer);
}

// The loop calls this between tokens, inside a NativeCall: takes the GIL, lets Ctrl-C through, and calls `callback`
// unless it is None. Returns false to stop. Throws py::error_already_set.
template <class Call>
bool report(const pybind11::object& callback, Call call) {
  if (NativeCall::stopping()) return false;
  const pybind11::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
  return callback.is_none() || !says_stop(call());
}

}  // namespace nsrt::python
