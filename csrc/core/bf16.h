// bfloat16 <-> float32 for single values and small arrays; hot paths have their own vector forms.
#pragma once

#include <bit>
#include <cstdint>

namespace nsrt {

constexpr float bf16_to_float(std::uint16_t x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x) << 16); }

// Round to nearest even; NaN stays NaN.
constexpr std::uint16_t float_to_bf16(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  if (x != x) return static_cast<std::uint16_t>((bits | 0x400000u) >> 16);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace nsrt
