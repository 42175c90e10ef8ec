// Race mode: what is known of every byte of device memory, in cells of two bytes (no type of ours is written in halves,
// and what a cell holds it holds for each of its bytes).
#pragma once

#include <cstddef>
#include <cstdint>

#include "clocks.h"

#ifndef NSRT_EMU_RACE
#error "NSRT_EMU_RACE must be 0 or 1"
#endif

namespace emu {

constexpr bool kRace = NSRT_EMU_RACE != 0;

// An access that was not atomic, or the size of one that was: atomics of different sizes are no match for each other.
enum class Atomic : std::uint32_t { no, four_bytes, eight_bytes };

struct WriteMark {
  std::uint32_t time;
  std::uint32_t thread : 24, bytes : 2, atomic : 2;
  // Of the cell itself.
  std::uint32_t allocated : 2, initialised : 2;
};
struct ReadMark {
  std::uint32_t time;
  std::uint32_t thread : 24, bytes : 2, atomic : 2;
};
// Reads beyond the second that nothing orders displace one of the two.
struct Cell {
  WriteMark write;
  ReadMark reads[2];
};

class Shadow {
 public:
  // For that many bytes of memory from offset 0 on.
  void map(std::size_t bytes);
  Cell& cell(std::size_t offset) { return cells_[offset / 2]; }
  // Calls f(cell, mask of its bytes) for all that the range touches.
  template <class F>
  void visit(std::size_t offset, std::size_t bytes, F f) {
    const std::size_t first = offset / 2, last = (offset + bytes - 1) / 2;
    for (std::size_t i = first; i <= last; ++i) {
      std::uint32_t mask = 3;
      if (i == first && offset % 2 == 1) mask &= 2;
      if (i == last && (offset + bytes) % 2 == 1) mask &= 1;
      f(cells_[i], mask);
    }
  }
  void open(std::size_t offset, std::size_t bytes);
  void close(std::size_t offset, std::size_t bytes);
  // A copy or a fill has written the range.
  void initialise(std::size_t offset, std::size_t bytes, std::uint32_t time);

 private:
  Cell* cells_ = nullptr;
};

}  // namespace emu
