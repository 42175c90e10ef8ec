#include "cpu/roofs.h"

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "core/check.h"
#include "core/memory.h"
#include "cpu/isa.h"
#include "cpu/pool.h"
#include "nextstep_rt/engine.h"

namespace nsrt::cpu {
namespace {

// A sample lasts at least so long, so that the clock and the team's start do not matter.
constexpr double kSampleSeconds = 2e-3;
constexpr std::int64_t kMostRounds = 1 << 20;
constexpr std::int64_t kFewestBytes = kRoofUnit * static_cast<std::int64_t>(sizeof(float));  // a member

void check_threads(int threads) {
  check<InvalidRequest>(threads >= 1, "threads is ", threads, "; at least 1 is needed");
}

// Seconds of one round of work(member, rounds), in a run that is long enough.
template <class Work>
double seconds_a_round(Pool& pool, Work&& work) {
  using Clock = std::chrono::steady_clock;
  for (std::int64_t rounds = 1;; rounds *= 4) {
    double seconds = 0;
    pool.run([&](Team& team) {
      team.barrier();
      const Clock::time_point begin = Clock::now();
      work(team, rounds);
      team.barrier();
      if (team.id() == 0) seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    });
    if (seconds >= kSampleSeconds || rounds >= kMostRounds) return seconds / static_cast<double>(rounds);
  }
}

// Each member's share of an array of floats, written by it.
struct Shares {
  Shares(std::int64_t bytes, Pool& pool) {
    const std::int64_t least = kFewestBytes * pool.size();
    check<InvalidRequest>(bytes >= least, "an array of ", bytes, " bytes is too small for ", pool.size(),
                          " threads; give it at least ", least);
    const std::uint64_t available = available_memory();
    check<InvalidRequest>(available == 0 || static_cast<std::uint64_t>(bytes) <= available, "an array of ", bytes,
                          " bytes does not fit in the ", available, " bytes that are available; ask for a smaller one");
    n = bytes / static_cast<std::int64_t>(sizeof(float));
    floats.reserve(static_cast<std::size_t>(n));
    pool.run([&](Team& team) {
      const Team::Range mine = range(team);
      std::fill(floats.data() + mine.begin, floats.data() + mine.end, 0.0f);
    });
  }
  // Whole units alone: what is left at the end is less than a unit.
  Team::Range range(const Team& team) const { return team.share(n / kRoofUnit * kRoofUnit, kRoofUnit); }

  Buffer<float> floats;
  std::int64_t n = 0;
};

// What is computed must be used, or it would not be.
void keep(float x) {
  [[maybe_unused]] static volatile float kept;
  kept = x;
}

}  // namespace

double read_seconds(std::int64_t bytes, int threads) {
  check_threads(threads);
  Pool pool(threads);
  const Shares array(bytes, pool);
  const RoofTable& roofs = kernels().roofs;
  const auto with = [&](float (*read)(const float*, std::int64_t)) {
    return seconds_a_round(pool, [&](Team& team, std::int64_t rounds) {
      const Team::Range mine = array.range(team);
      float sum = 0;
      for (std::int64_t i = 0; i < rounds; ++i) sum += read(array.floats.data() + mine.begin, mine.end - mine.begin);
      if (team.id() == 0) keep(sum);
    });
  };
  return std::min(with(roofs.read_in_order), with(roofs.read_in_streams));
}

double copy_seconds(std::int64_t bytes, int threads) {
  check_threads(threads);
  Pool pool(threads);
  const Shares from(bytes, pool);
  Shares to(bytes, pool);
  return seconds_a_round(pool, [&](Team& team, std::int64_t rounds) {
    const auto [begin, end] = from.range(team);
    for (std::int64_t i = 0; i < rounds; ++i)
      kernels().roofs.copy(from.floats.data() + begin, end - begin, to.floats.data() + begin);
  });
}

double peak_flops(DType dtype, int threads) {
  check_threads(threads);
  const RoofTable& roofs = kernels().roofs;
  const bool pairs = dtype == DType::kBFloat16;
  check<InvalidRequest>(!pairs || roofs.multiply_pairs != nullptr, "the level ", kernels().name,
                        " has no dot product of bfloat16; ask for float32, which it computes with");
  const auto multiply = pairs ? roofs.multiply_pairs : roofs.multiply_floats;
  constexpr std::int64_t kRounds = 256;
  Pool pool(threads);
  const double seconds = seconds_a_round(pool, [&](Team& team, std::int64_t rounds) {
    const float sum = multiply(kRounds * rounds, 0.5f, 0.25f);
    if (team.id() == 0) keep(sum);
  });
  const std::int64_t operations = kRounds * (pairs ? 4 * roofs.pair_chains : 2 * roofs.chains) * roofs.lanes * threads;
  return static_cast<double>(operations) / seconds;
}

double barrier_seconds(int threads) {
  check_threads(threads);
  Pool pool(threads);
  return seconds_a_round(pool, [](Team& team, std::int64_t rounds) {
    for (std::int64_t i = 0; i < rounds; ++i) team.barrier();
  });
}

double pool_wake_seconds(int threads) {
  check_threads(threads);
  Pool pool(threads);
  constexpr int kRuns = 1000;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kRuns; ++i) pool.run([](Team&) {});
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() / kRuns;
}

}  // namespace nsrt::cpu
