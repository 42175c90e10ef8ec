#include "api.h"

#include <algorithm>
#include <sstream>

#include "symbols.h"

namespace emu {

Errors& errors() {
  static Errors& made = *new Errors;
  return made;
}

cudaError_t& last_error() {
  thread_local cudaError_t error = cudaSuccess;
  return error;
}

cudaError_t Errors::stick(cudaError_t error, const std::string& failure) {
  const std::lock_guard lock(mutex_);
  if (sticky_ == cudaSuccess) {
    sticky_ = error;
    failure_ = failure;
  }
  return sticky_;
}

cudaError_t Errors::sticky() const {
  const std::lock_guard lock(mutex_);
  return sticky_;
}

void Errors::note(const std::string& failure) {
  const std::lock_guard lock(mutex_);
  if (sticky_ == cudaSuccess) failure_ = failure;
}

std::string Errors::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

void Errors::fail_next(const std::string& function, cudaError_t error, int after) {
  const std::lock_guard lock(mutex_);
  injected_.push_back({function, error, after});
}

cudaError_t Errors::injected(const char* function) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(injected_, function, &Injected::function);
  if (found == injected_.end() || found->after-- > 0) return cudaSuccess;
  const cudaError_t error = found->error;
  injected_.erase(found);
  return error;
}

void Errors::reset() {
  const std::lock_guard lock(mutex_);
  sticky_ = cudaSuccess;
  failure_.clear();
  injected_.clear();
}

cudaError_t refuse(cudaError_t error, const std::string& why) {
  errors().note(why);
  return error;
}

void refuse_host_access(const void* address) {
  if (errors().sticky() != cudaSuccess) return;
  std::ostringstream text;
  text << "host code used " << address << ", which is the device's memory";
  for (const std::string& line : source_lines()) text << "\n  at " << line;
  errors().stick(cudaErrorIllegalAddress, text.str());
}

}  // namespace emu

using emu::last_error;

cudaError_t cudaPeekAtLastError() {
  const cudaError_t sticky = emu::errors().sticky();
  return sticky != cudaSuccess ? sticky : last_error();
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  last_error() = cudaSuccess;
  return error;
}

#define NSRT_EMU_ERRORS(X)                                                                          \
  X(cudaSuccess, "no error")                                                                        \
  X(cudaErrorInvalidValue, "invalid argument")                                                      \
  X(cudaErrorMemoryAllocation, "out of memory")                                                     \
  X(cudaErrorInitializationError, "initialization error")                                           \
  X(cudaErrorInvalidConfiguration, "invalid configuration argument")                                \
  X(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version")    \
  X(cudaErrorInvalidDeviceFunction, "invalid device function")                                      \
  X(cudaErrorNoDevice, "no CUDA-capable device is detected")                                        \
  X(cudaErrorInvalidDevice, "invalid device ordinal")                                               \
  X(cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device")    \
  X(cudaErrorUnsupportedPtxVersion, "the provided PTX was compiled with an unsupported toolchain.") \
  X(cudaErrorInvalidResourceHandle, "invalid resource handle")                                      \
  X(cudaErrorIllegalState, "the operation cannot be performed in the present state")                \
  X(cudaErrorNotReady, "device not ready")                                                          \
  X(cudaErrorIllegalAddress, "an illegal memory access was encountered")                            \
  X(cudaErrorLaunchOutOfResources, "too many resources requested for launch")                       \
  X(cudaErrorLaunchTimeout, "the launch timed out and was terminated")                              \
  X(cudaErrorLaunchFailure, "unspecified launch failure")                                           \
  X(cudaErrorMisalignedAddress, "misaligned address")                                               \
  X(cudaErrorCooperativeLaunchTooLarge, "too many blocks in cooperative launch")                    \
  X(cudaErrorNotSupported, "operation not supported")                                               \
  X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")          \
  X(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture")   \
  X(cudaErrorUnknown, "unknown error")

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define NSRT_EMU_NAME(code, text) \
  case code:                      \
    return #code;
    NSRT_EMU_ERRORS(NSRT_EMU_NAME)
    default:
      return "unrecognized error code";
  }
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
#define NSRT_EMU_TEXT(code, text) \
  case code:                      \
    return text;
    NSRT_EMU_ERRORS(NSRT_EMU_TEXT)
    default:
      return "unrecognized error code";
  }
}
