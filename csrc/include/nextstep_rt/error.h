// Every failure of the library is one of these; what() says what was wrong and what to do about it.
#pragma once

#include <stdexcept>
#include <string>

namespace nsrt {

// Base of all errors: a device, memory or state problem.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The checkpoint on disk cannot be used: missing, damaged, or not a NextStep-1 model.
class CheckpointError : public Error {
 public:
  using Error::Error;
};

// The caller asked for something impossible; the request can be corrected and sent again.
class InvalidRequest : public Error {
 public:
  using Error::Error;
};

// A progress callback stopped prefill; the engine is as after reset().
class Cancelled : public Error {
 public:
  using Error::Error;
};

}  // namespace nsrt
