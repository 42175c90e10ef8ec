// Running a kernel under every seed, and saying what is wrong.
#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "emu/control.h"

namespace kit {

constexpr std::uint64_t kSeeds = 8;

inline int& failures() {
  static int count = 0;
  return count;
}

inline void expect(bool good, const std::string& what) {
  if (good) return;
  ++failures();
  std::printf("FAILED: %s\n", what.c_str());
}

inline void expect_ok(cudaError_t error, const std::string& what) {
  expect(error == cudaSuccess, what + ": " + cudaGetErrorName(error) + ": " + emu::control::last_failure());
}

// An array of the device.
template <class T>
class Array {
 public:
  explicit Array(std::size_t count) : count_(count) { cudaMalloc(&data_, count * sizeof(T)); }
  explicit Array(const std::vector<T>& values) : Array(values.size()) {
    cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice);
  }
  Array(std::size_t count, T value) : Array(std::vector<T>(count, value)) {}
  ~Array() { cudaFree(data_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  T* get() const { return data_; }
  std::vector<T> values() const {
    std::vector<T> copy(count_);
    cudaMemcpy(copy.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost);
    return copy;
  }

 private:
  std::size_t count_;
  T* data_ = nullptr;
};

struct Shape {
  unsigned grid = 1, block = 32;
  std::size_t shared_bytes = 0;
  bool cooperative = false, programmatic = false;
  cudaStream_t stream = nullptr;
};

template <class... Parameters, class... Arguments>
cudaError_t launch(const Shape& shape, void (*kernel)(Parameters...), Arguments&&... arguments) {
  cudaLaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (shape.cooperative) {
    attributes[count].id = cudaLaunchAttributeCooperative;
    attributes[count++].val.cooperative = 1;
  }
  if (shape.programmatic) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(shape.grid);
  config.blockDim = dim3(shape.block);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = shape.stream;
  config.attrs = attributes;
  config.numAttrs = count;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

// `run` launches and returns what it got; it must be right under every seed.
template <class Run>
void passes(const std::string& name, Run run) {
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    emu::control::set_seed(seed);
    expect_ok(run(), name + ", seed " + std::to_string(seed));
    emu::control::reset();
  }
  std::printf("%s: runs\n", name.c_str());
}

// The launch must fail under every seed, and `word` be in the reason. With race_only, in race mode alone.
template <class Run>
void is_caught(const std::string& name, const std::string& word, bool race_only, Run run) {
  if (race_only && !emu::control::race_mode()) return;
  int caught = 0;
  std::string reason;
  for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
    emu::control::set_seed(seed);
    const cudaError_t error = run();
    reason = emu::control::last_failure();
    const bool good = error == cudaErrorLaunchFailure && reason.find(word) != std::string::npos;
    expect(good, name + ", seed " + std::to_string(seed) + ": expected '" + word + "', got " + cudaGetErrorName(error) +
                     ": " + reason);
    caught += good;
    emu::control::reset();
  }
  std::printf("%s: caught under %d of %d seeds\n%s\n", name.c_str(), caught, static_cast<int>(kSeeds), reason.c_str());
}

inline int result() {
  std::printf(failures() ? "%d failures\n" : "all passed\n", failures());
  return failures() != 0;
}

}  // namespace kit
