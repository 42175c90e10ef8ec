// Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) and Box-Muller in double, so
// that a number depends on (seed, token, draw, index) only: not on the batch, the backend or the thread.
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "core/check.h"
#include "nextstep_rt/engine.h"

namespace nsrt {
namespace {

using Block = std::array<std::uint32_t, 4>;

Block philox(Block counter, std::uint32_t key0, std::uint32_t key1) {
  constexpr std::uint64_t kMul0 = 0xD2511F53u, kMul1 = 0xCD9E8D57u;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = kMul0 * counter[0], b = kMul1 * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key0, static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key1, static_cast<std::uint32_t>(a)};
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return counter;
}

// (0, 1), never its ends.
double uniform(std::uint32_t bits) { return (static_cast<double>(bits) + 0.5) * 0x1p-32; }

}  // namespace

void normal_noise(std::uint64_t seed, std::int64_t token, std::int64_t draw, std::int64_t n, float* out) {
  check<InvalidRequest>(token >= 0 && draw >= 0 && draw <= UINT32_MAX && n >= 0, "noise of token ", token, ", draw ",
                        draw, ", length ", n, ": none may be negative, nor draw above 2^32 - 1");
  const auto t = static_cast<std::uint64_t>(token);
  for (std::int64_t i = 0; i < n; i += 4) {
    const Block bits = philox({static_cast<std::uint32_t>(i / 4), static_cast<std::uint32_t>(draw),
                               static_cast<std::uint32_t>(t), static_cast<std::uint32_t>(t >> 32)},
                              static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32));
    for (std::int64_t pair = 0; pair < 4 && i + pair < n; pair += 2) {
      const auto p = static_cast<std::size_t>(pair);
      const double radius = std::sqrt(-2 * std::log(uniform(bits[p])));
      const double angle = 2 * std::numbers::pi * uniform(bits[p + 1]);
      out[i + pair] = static_cast<float>(radius * std::cos(angle));
      if (i + pair + 1 < n) out[i + pair + 1] = static_cast<float>(radius * std::sin(angle));
    }
  }
}

}  // namespace nsrt
