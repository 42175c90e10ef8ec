#include "core/tables.h"

#include <cmath>

namespace nsrt {

void time_sinusoid(double t, float* out) {
  constexpr std::int64_t kHalf = kTimeDims / 2;
  for (std::int64_t i = 0; i < kHalf; ++i) {
    const double angle = t * std::exp(-std::log(10000.0) * static_cast<double>(i) / static_cast<double>(kHalf));
    out[i] = static_cast<float>(std::cos(angle));
    out[kHalf + i] = static_cast<float>(std::sin(angle));
  }
}

void rope_angles(std::int64_t position, double theta, std::int64_t d_head, float* cos, float* sin) {
  for (std::int64_t i = 0; i < d_head / 2; ++i) {
    const double angle =
        static_cast<double>(position) * std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(d_head));
    cos[i] = static_cast<float>(std::cos(angle));
    sin[i] = static_cast<float>(std::sin(angle));
  }
}

}  // namespace nsrt
