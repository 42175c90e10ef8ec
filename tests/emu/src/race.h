// Race mode: every access of device memory is checked against what happened before it. In other builds all of this does
// nothing.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>

#include "clocks.h"
#include "machine.h"
#include "shadow.h"
#include "threads.h"

namespace emu {

enum class Effect { read, write, update };

struct Access {
  const void* address;
  unsigned bytes;
  Effect effect;
  Atomic atomic = Atomic::no;
  // By the thread itself or by a copy that it has started.
  bool copy = false;
};

class RaceDetector {
 public:
  RaceDetector(Machine& machine, bool programmatic, std::uint32_t dependencies_since);

  void begin(Thread& thread) const;
  // The memory is another block's now.
  void forget_released(const std::byte* begin, std::size_t bytes);
  // Fails the launch if the access is wrong; else notes it.
  void check(Thread& thread, const Access& access);
  // The memory must not have been written while this kernel, or what it may overlap with, has been running.
  void check_constant(const void* address, unsigned bytes) const;

  // ---- what orders accesses

  // All that any of them did is before all that they do next.
  void meet(std::span<Thread* const> threads);
  void load(Thread& thread, const void* address, Order order);
  void store(Thread& thread, const void* address, Order order);
  void update(Thread& thread, const void* address, Order order);
  void fence(Thread& thread);
  // The time at which a copy that starts now counts as made, and its end.
  std::uint32_t start_copy(Thread& thread);
  void finish_copy(Thread& thread, std::uint32_t time);

 private:
  bool ordered(const Thread& thread, std::uint32_t id, std::uint32_t time) const;
  void check_dependencies(const Thread& thread, const Access& access, std::size_t offset) const;
  void check_cell(Cell& cell, std::uint32_t mask, const Thread& thread, const Access& access, std::size_t offset) const;
  void note(Cell& cell, std::uint32_t mask, const Thread& thread, const Access& access);
  void advance(Thread& thread);
  void release_into(Clock& clock, Thread& thread);

  Machine& machine_;
  const std::uint32_t begin_;  // what is older is before everything in this launch
  const bool programmatic_;
  const std::uint32_t dependencies_since_;
  // What an acquiring load of an address learns.
  std::unordered_map<const void*, Clock> released_;
};

}  // namespace emu
