// What the tests of the CPU's kernels share.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "core/bf16.h"
#include "cpu/isa.h"

namespace nsrt::test {

// Around the lanes of every level.
inline constexpr std::int64_t kSizes[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 256, 257};

template <class F>
void for_each_level(F f) {
  for (const std::string& name : cpu::isa_levels()) f(cpu::kernels(name));
}

inline std::vector<std::uint16_t> to_bf16(const std::vector<float>& x) {
  std::vector<std::uint16_t> out;
  for (const float v : x) out.push_back(float_to_bf16(v));
  return out;
}

// |error| <= units * epsilon * scale
inline bool close(double got, double want, double scale, double units) {
  return std::fabs(got - want) <= units * 0x1p-24 * scale + 1e-30;
}

}  // namespace nsrt::test
