// Random inputs, and results in double to hold kernels against.
#pragma once

#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/bf16.h"
#include "core/check.h"
#include "nextstep_rt/tensor.h"
#include "self/kit.h"

namespace kit {

using nsrt::DType;

// Numbers as a kernel reads them, and the same in double.
class Numbers {
 public:
  Numbers(std::mt19937& random, std::size_t count, DType dtype, double scale = 1.0)
      : dtype_(dtype), bytes_(count * item(dtype)) {
    std::normal_distribution<float> normal(0.0f, static_cast<float>(scale));
    for (std::size_t i = 0; i < count; ++i) {
      const float x = normal(random);
      if (dtype == DType::kBFloat16) {
        const std::uint16_t half = nsrt::float_to_bf16(x);
        std::memcpy(bytes_.data() + 2 * i, &half, 2);
        values_.push_back(nsrt::bf16_to_float(half));
      } else {
        std::memcpy(bytes_.data() + 4 * i, &x, 4);
        values_.push_back(x);
      }
    }
    device_ = std::make_unique<Array<std::byte>>(bytes_);
  }

  const void* device() const { return device_->get(); }
  void* device() { return device_->get(); }
  const float* floats() const { return reinterpret_cast<const float*>(device_->get()); }
  double operator[](std::size_t i) const { return values_[i]; }
  void set(std::size_t i, double value) {
    const auto x = static_cast<float>(value);
    const std::uint16_t half = nsrt::float_to_bf16(x);
    const bool is_half = dtype_ == DType::kBFloat16;
    std::memcpy(bytes_.data() + i * item(dtype_), is_half ? static_cast<const void*>(&half) : &x, item(dtype_));
    values_[i] = is_half ? nsrt::bf16_to_float(half) : x;
    device_ = std::make_unique<Array<std::byte>>(bytes_);
  }
  std::size_t size() const { return values_.size(); }

  // What the device holds now.
  std::vector<double> now() const { return read(*device_, dtype_); }

  static std::vector<double> read(const Array<std::byte>& array, DType dtype) {
    const std::vector<std::byte> bytes = array.values();
    std::vector<double> out(bytes.size() / item(dtype));
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (dtype == DType::kBFloat16) {
        std::uint16_t half;
        std::memcpy(&half, bytes.data() + 2 * i, 2);
        out[i] = nsrt::bf16_to_float(half);
      } else {
        float x;
        std::memcpy(&x, bytes.data() + 4 * i, 4);
        out[i] = x;
      }
    }
    return out;
  }

 private:
  static std::size_t item(DType dtype) { return dtype == DType::kBFloat16 ? 2 : 4; }

  DType dtype_;
  std::vector<std::byte> bytes_;
  std::vector<double> values_;
  std::unique_ptr<Array<std::byte>> device_;
};

// An output: every element is NaN until it is written.
class Output {
 public:
  Output(std::size_t count, DType dtype)
      : dtype_(dtype), array_(std::vector<std::byte>(count * (dtype == DType::kBFloat16 ? 2 : 4), std::byte{0xff})) {}
  void* device() { return array_.get(); }
  float* floats() { return reinterpret_cast<float*>(array_.get()); }
  std::vector<double> values() const { return Numbers::read(array_, dtype_); }
  std::vector<std::byte> bytes() const { return array_.values(); }

 private:
  DType dtype_;
  Array<std::byte> array_;
};

// |got - wanted| <= tolerance * (the largest wanted), everywhere. Names the worst element.
inline void expect_close(const std::vector<double>& got, const std::vector<double>& wanted, double tolerance,
                         const std::string& what) {
  if (got.size() != wanted.size()) return expect(false, what + ": other sizes");
  double scale = 0, worst = 0;
  std::size_t at = 0;
  for (const double w : wanted) scale = std::max(scale, std::abs(w));
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(got[i] - wanted[i]) / scale;
    if (!(error <= worst)) worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : error, at = i;
  }
  expect(worst <= tolerance, what + ": element " + std::to_string(at) + " is " + std::to_string(got[at]) + ", not " +
                                 std::to_string(wanted[at]) + "; relative error " + std::to_string(worst));
}

// Rounding of the result, and of float32 sums of `length` addends.
inline double tolerance(DType output, std::size_t length) {
  const double sums = 4 * std::sqrt(static_cast<double>(length)) * 6e-8;
  return sums + (output == DType::kBFloat16 ? 1.0 / 256 : 1e-6);
}

inline std::size_t count(int a, int b, int c = 1) {
  return static_cast<std::size_t>(a) * static_cast<std::size_t>(b) * static_cast<std::size_t>(c);
}

inline double silu(double x) { return x / (1 + std::exp(-x)); }

constexpr int kLargeDevice = 227 * 1024;

// Bytes of shared memory that a block may have: as many KB as the program's argument says, else a large device's.
inline int& shared_limit() {
  static int bytes = kLargeDevice;
  return bytes;
}

inline void read_arguments(int argc, char** argv) {
  if (argc > 1) shared_limit() = std::stoi(argv[1]) * 1024;
  emu::control::set_shared_limit(static_cast<std::size_t>(shared_limit()));
}

// Calls test(random) under every seed, on a smaller device under half of them, until one fails; each with inputs of its
// own; an Error is a failure, not the end.
template <class Test>
int under_seeds(Test&& test) {
  const std::uint64_t seeds = shared_limit() == kLargeDevice ? kSeeds : kSeeds / 2;
  for (std::uint64_t seed = 0; seed < seeds && failures() == 0; ++seed) {
    emu::control::set_seed(seed);
    std::mt19937 random(static_cast<unsigned>(seed + 1));
    try {
      test(random);
    } catch (const nsrt::Error& error) {
      expect(false, std::string(error.what()) + "\n" + emu::control::last_failure());
      emu::control::reset();
    }
  }
  return result();
}

}  // namespace kit
