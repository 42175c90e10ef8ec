// Checks that throw with the values in the message.
#pragma once

#include <sstream>
#include <string>

#include "nextstep_rt/error.h"

namespace nsrt {

// Concatenates its arguments as operator<< prints them.
template <class... Args>
std::string str(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

// Throws E with the concatenated message unless `ok`. The message is built only on failure.
template <class E = Error, class... Args>
void check(bool ok, const Args&... args) {
  if (!ok) [[unlikely]]
    throw E(str(args...));
}

}  // namespace nsrt
