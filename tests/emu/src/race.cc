#include "race.h"

#include <algorithm>
#include <string>
#include <vector>

#include "grid.h"
#include "report.h"

namespace emu {
namespace {

const char* name_of(const Access& access) {
  const bool atomic = access.atomic != Atomic::no;
  if (access.copy) return access.effect == Effect::read ? "asynchronous read" : "asynchronous write";
  switch (access.effect) {
    case Effect::read:
      return atomic ? "atomic read" : "read";
    case Effect::write:
      return atomic ? "atomic write" : "write";
    default:
      return "atomic update";
  }
}

std::string about(const Access& access) {
  return std::string(name_of(access)) + " of " + std::to_string(access.bytes) + " bytes";
}

}  // namespace

RaceDetector::RaceDetector(Machine& machine, bool programmatic, std::uint32_t dependencies_since)
    : machine_(machine), begin_(++machine.time), programmatic_(programmatic), dependencies_since_(dependencies_since) {}

void RaceDetector::begin(Thread& thread) const {
  if constexpr (!kRace) return;
  thread.causality.id = {thread.block->linear, thread.index};
  thread.causality.time = thread.causality.copy_time = begin_;
}

void RaceDetector::forget_released(const std::byte* begin, std::size_t bytes) {
  std::erase_if(released_, [&](const auto& entry) {
    return static_cast<std::size_t>(static_cast<const std::byte*>(entry.first) - begin) < bytes;
  });
}

bool RaceDetector::ordered(const Thread& thread, std::uint32_t id, std::uint32_t time) const {
  return time < begin_ || id == thread.causality.id.bits() || thread.causality.seen.of(ThreadId::from_bits(id)) >= time;
}

// ---- accesses

void RaceDetector::check(Thread& thread, const Access& access) {
  if constexpr (!kRace) return;
  const std::size_t offset = machine_.memory.offset_of(access.address);
  if (offset >= kGlobalBytes && (offset - kGlobalBytes) / kSlotBytes != thread.block->slot)
    fail(about(access) + " of another block's shared memory");
  if (programmatic_ && !thread.past_dependencies && offset < kGlobalBytes) check_dependencies(thread, access, offset);
  std::size_t at = offset / 2 * 2;
  machine_.memory.shadow().visit(offset, access.bytes, [&](Cell& cell, std::uint32_t mask) {
    check_cell(cell, mask, thread, access, at);
    note(cell, mask, thread, access);
    at += 2;
  });
}

void RaceDetector::check_dependencies(const Thread&, const Access& access, std::size_t offset) const {
  if (access.effect != Effect::read)
    fail(about(access) +
         " before waiting for dependencies (the launch is programmatic): " + place(machine_.memory, offset));
  machine_.memory.shadow().visit(offset, access.bytes, [&](Cell& cell, std::uint32_t) {
    if (cell.write.time >= dependencies_since_)
      fail(about(access) + " before waiting for dependencies, of what earlier work in the stream has written: " +
           place(machine_.memory, offset));
  });
}

void RaceDetector::check_cell(Cell& cell, std::uint32_t mask, const Thread& thread, const Access& access,
                              std::size_t offset) const {
  const WriteMark write = cell.write;
  const auto where = [&] { return ": " + place(machine_.memory, offset); };
  if (mask & ~write.allocated) [[unlikely]]
    fail("out-of-bounds " + about(access) + where());
  if (access.effect != Effect::write && mask & ~write.initialised) [[unlikely]]
    fail("uninitialised " + about(access) + where());
  const auto atomic = static_cast<std::uint32_t>(access.atomic);
  const auto matched = [atomic](std::uint32_t other) { return atomic != 0 && atomic == other; };
  if (mask & write.bytes && !matched(write.atomic) && !ordered(thread, write.thread, write.time)) [[unlikely]]
    fail("data race: " + about(access) + " not ordered after a write by " + name_of(*thread.block->grid, write.thread) +
         where());
  if (access.effect == Effect::read) return;
  for (const ReadMark& read : cell.reads)
    if (mask & read.bytes && !matched(read.atomic) && !ordered(thread, read.thread, read.time)) [[unlikely]]
      fail("data race: " + about(access) + " not ordered after a read by " + name_of(*thread.block->grid, read.thread) +
           where());
}

void RaceDetector::note(Cell& cell, std::uint32_t mask, const Thread& thread, const Access& access) {
  const Causality& self = thread.causality;
  const std::uint32_t id = (access.copy ? self.id.copies() : self.id).bits();
  const std::uint32_t time = access.copy ? self.copy_time : self.time;
  const auto atomic = static_cast<std::uint32_t>(access.atomic);
  if (access.effect != Effect::read) {
    WriteMark& write = cell.write;
    const std::uint32_t allocated = write.allocated, initialised = write.initialised | mask;
    write = {.time = time,
             .thread = id & 0xffffff,
             .bytes = mask & 3,
             .atomic = atomic & 3,
             .allocated = allocated & 3,
             .initialised = initialised & 3};
    return;
  }
  ReadMark* place = nullptr;
  for (ReadMark& read : cell.reads)
    if (read.time < begin_ || (read.thread == id && read.bytes == mask)) {
      place = &read;
      break;
    }
  if (place == nullptr) place = &cell.reads[thread.block->grid->scheduler().random().below(2)];
  *place = {.time = time, .thread = id & 0xffffff, .bytes = mask & 3, .atomic = atomic & 3};
}

void RaceDetector::check_constant(const void* address, unsigned bytes) const {
  if constexpr (!kRace) return;
  const std::size_t offset = machine_.memory.offset_of(address);
  const std::uint32_t since = programmatic_ ? dependencies_since_ : begin_;
  machine_.memory.shadow().visit(offset, bytes, [&](Cell& cell, std::uint32_t) {
    if (cell.write.time >= since && cell.write.thread != ThreadId::outside().bits())
      fail("read-only load of what a kernel has written since it may have started: " + place(machine_.memory, offset));
  });
}

// ---- order

void RaceDetector::advance(Thread& thread) { machine_.time = std::max(machine_.time, ++thread.causality.time); }

void RaceDetector::release_into(Clock& clock, Thread& thread) {
  clock.join(thread.causality.seen);
  clock.raise(thread.causality.id, thread.causality.time);
  advance(thread);
}

void RaceDetector::meet(std::span<Thread* const> threads) {
  if constexpr (!kRace) return;
  Clock all;
  std::vector<const void*> joined;
  for (const Thread* thread : threads) {
    const Clock& seen = thread->causality.seen;
    if (std::ranges::find(joined, seen.identity()) != joined.end()) continue;
    joined.push_back(seen.identity());
    all.join(seen);
  }
  for (const Thread* thread : threads) all.raise(thread->causality.id, thread->causality.time);
  for (Thread* thread : threads) {
    advance(*thread);
    thread->causality.seen = all;
  }
}

void RaceDetector::load(Thread& thread, const void* address, Order order) {
  if constexpr (!kRace) return;
  const Clock& released = released_[address];
  (order == Order::relaxed ? thread.causality.fence_to_acquire : thread.causality.seen).join(released);
}

void RaceDetector::store(Thread& thread, const void* address, Order order) {
  if constexpr (!kRace) return;
  Clock& released = released_[address];
  released = thread.causality.fence_released;
  if (order != Order::relaxed) release_into(released, thread);
}

// Unlike a store, it passes on what earlier updates have released.
void RaceDetector::update(Thread& thread, const void* address, Order order) {
  if constexpr (!kRace) return;
  const bool acquires = order == Order::acquire || order == Order::acquire_release;
  load(thread, address, acquires ? Order::acquire : Order::relaxed);
  Clock& released = released_[address];
  released.join(thread.causality.fence_released);
  if (order == Order::release || order == Order::acquire_release) release_into(released, thread);
}

void RaceDetector::fence(Thread& thread) {
  if constexpr (!kRace) return;
  Causality& self = thread.causality;
  self.seen.join(self.fence_to_acquire);
  self.fence_released = {};
  release_into(self.fence_released, thread);
}

std::uint32_t RaceDetector::start_copy(Thread& thread) {
  Causality& self = thread.causality;
  self.copy_time = std::max(self.copy_time + 1, self.time);
  machine_.time = std::max(machine_.time, self.copy_time);
  return self.copy_time;
}

void RaceDetector::finish_copy(Thread& thread, std::uint32_t time) {
  if constexpr (kRace) thread.causality.seen.raise(thread.causality.id.copies(), time);
}

}  // namespace emu
