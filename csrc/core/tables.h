// Small tables of sines and cosines, computed in double and rounded once.
#pragma once

#include <cstdint>

namespace nsrt {

inline constexpr std::int64_t kTimeDims = 256;  // width of the FM head's time sinusoid

// out [256]: 128 cosines, then 128 sines, of t * 10000^(-i/128); t in [0, 1], unscaled.
void time_sinusoid(double t, float* out);

// cos, sin [d_head / 2]: of position * theta^(-2i/d_head).
void rope_angles(std::int64_t position, double theta, std::int64_t d_head, float* cos, float* sin);

}  // namespace nsrt
