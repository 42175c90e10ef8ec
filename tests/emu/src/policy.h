// What a seed stands for.
#pragma once

#include <cstdint>

namespace emu {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_((seed + 1) * 0x9E3779B97F4A7C15u | 1) {
    for (int i = 0; i < 4; ++i) next();
  }
  unsigned below(unsigned n) { return static_cast<unsigned>((next() >> 33) % n); }

 private:
  std::uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    return state_ ^= state_ << 17;
  }
  std::uint64_t state_;
};

enum class Direction { ascending, descending, random };
enum class Arrival { at_once, random, when_waited_for };

struct Policy {
  Direction direction = Direction::ascending;
  // How often, of a hundred times, a warp goes on rather than another.
  unsigned stay = 100;
  Arrival copies = Arrival::at_once;
  // Race mode: one access of memory in so many is followed by another thread; 0 for none.
  unsigned interrupt_one_in = 0;

  static Policy of(std::uint64_t seed) {
    if (seed == 0) return {};
    if (seed == 1) return {Direction::descending, 100, Arrival::when_waited_for, 0};
    constexpr unsigned kStay[] = {100, 90, 50}, kInterrupt[] = {0, 40, 400};
    constexpr Arrival kCopies[] = {Arrival::at_once, Arrival::random, Arrival::when_waited_for};
    return {Direction::random, kStay[seed % 3], kCopies[seed / 3 % 3], kInterrupt[seed % 3]};
  }
};

}  // namespace emu
