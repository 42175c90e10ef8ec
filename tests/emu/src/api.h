// What the calls of the runtime have in common: one lock, errors that stick, errors that a test asked for.
#pragma once

#include <cuda_runtime_api.h>

#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "machine.h"

namespace emu {

class Errors {
 public:
  // Of a kernel, or of the host in the device's memory: all calls return it until reset().
  cudaError_t stick(cudaError_t error, const std::string& failure);
  cudaError_t sticky() const;
  // The last thing that went wrong, sticky or not.
  void note(const std::string& failure);
  std::string failure() const;
  void fail_next(const std::string& function, cudaError_t error, int after);
  // What a test asked this call to return; else cudaSuccess.
  cudaError_t injected(const char* function);
  void reset();

 private:
  struct Injected {
    std::string function;
    cudaError_t error;
    int after;
  };
  // Its own: the host's wrong accesses come from any thread, also while a kernel holds the machine.
  mutable std::mutex mutex_;
  cudaError_t sticky_ = cudaSuccess;
  std::string failure_;
  std::vector<Injected> injected_;
};
Errors& errors();

// The last error of this OS thread, as cudaGetLastError() returns it.
cudaError_t& last_error();
// Keeps what an argument was wrong with for control::last_failure().
cudaError_t refuse(cudaError_t error, const std::string& why);
// Host code has used a pointer to device memory.
void refuse_host_access(const void* address);

// Runs the body of a call of the runtime, with the machine locked.
template <class Body>
cudaError_t guarded(Body body) {
  Machine& device = machine();
  const std::lock_guard lock(device.mutex);
  cudaError_t error = cudaErrorMemoryAllocation;
  try {
    error = body(device);
  } catch (const std::bad_alloc&) {
  }
  if (error != cudaSuccess) last_error() = error;
  return error;
}

// The same for a call that does nothing when an error sticks or is to be injected.
template <class Body>
cudaError_t api(const char* function, Body body) {
  return guarded([&](Machine& device) {
    cudaError_t error = errors().sticky();
    if (error == cudaSuccess) error = errors().injected(function);
    return error == cudaSuccess ? body(device) : error;
  });
}

// For a call that gives something back: it does so in any case.
template <class Body>
cudaError_t api_release(const char* function, Body body) {
  return guarded([&](Machine& device) {
    const cudaError_t done = body(device);
    cudaError_t error = errors().sticky();
    if (error == cudaSuccess) error = errors().injected(function);
    return error == cudaSuccess ? done : error;
  });
}

}  // namespace emu
