#include "accesses.h"

#include <cstring>
#include <sstream>
#include <string>

#include "emu/builtins.h"
#include "grid.h"

namespace emu {
namespace {

constexpr int kWaitsFrom = 90;  // code that has griddepcontrol

bool is_launch_shape(const void* address) {
  const auto within = [address](const dim3& size) {
    return static_cast<std::size_t>(static_cast<const char*>(address) - reinterpret_cast<const char*>(&size)) <
           sizeof size;
  };
  return within(gridDim) || within(blockDim);
}

void check_foreign(const Machine& machine, const Access& access) {
  if (access.effect == Effect::read && is_launch_shape(access.address)) return;
  if (machine.host.is_pinned(access.address, access.bytes)) return;
  if (access.effect == Effect::read && in_program(access.address)) return;
  std::ostringstream text;
  text << (access.effect == Effect::read ? "read" : "write") << " of " << access.bytes << " bytes at " << access.address
       << ", which is not the device's memory";
  fail(text.str());
}

}  // namespace

void check_alignment(const void* address, unsigned bytes) {
  if (reinterpret_cast<std::uintptr_t>(address) % bytes != 0)
    fail("misaligned access of " + std::to_string(bytes) + " bytes");
}

void device_access(Thread& thread, const Access& access) {
  if constexpr (!kRace) return;
  const auto on_stack = static_cast<std::size_t>(static_cast<const std::byte*>(access.address) -
                                                 static_cast<const std::byte*>(thread.fiber.stack));
  if (on_stack < kStackBytes) return;
  Grid& grid = *thread.block->grid;
  if (!grid.machine().memory.contains(access.address)) return check_foreign(grid.machine(), access);
  grid.step();
  const unsigned one_in = grid.scheduler().policy().interrupt_one_in;
  if (one_in != 0 && grid.scheduler().random().below(one_in) == 0) grid.yield(thread);
  grid.races().check(thread, access);
}

void check_constant(const void* address, unsigned bytes) {
  const CoreCall call;
  Thread& thread = call.thread;
  check_alignment(address, bytes);
  Grid& grid = *thread.block->grid;
  const Memory& memory = grid.machine().memory;
  if (!memory.contains(address)) return;
  if (memory.offset_of(address) >= kGlobalBytes) fail("read-only load of shared memory");
  grid.races().check_constant(address, bytes);
}

// ---- ordered accesses

namespace {

Atomic atomic_of(unsigned bytes) { return bytes == 8 ? Atomic::eight_bytes : Atomic::four_bytes; }

std::uint64_t value_at(const void* address, unsigned bytes) {
  std::uint64_t value = 0;
  std::memcpy(&value, address, bytes);
  return value;
}

// Has the thread lately loaded the same there? Then it is in a loop that waits for others, over one word or several.
bool repeats(Thread& thread, const void* address, std::uint64_t value) {
  constexpr std::size_t kRemembered = 64;
  for (const auto& [where, what] : thread.recent_loads)
    if (where == address && what == value) return true;
  if (thread.recent_loads.size() == kRemembered) thread.recent_loads.clear();
  thread.recent_loads.push_back({address, value});
  return false;
}

// Others see what was written at once or later: both must do.
void after_write(Thread& thread) {
  Grid& grid = *thread.block->grid;
  if (grid.scheduler().policy().stay < 100) grid.yield(thread);
}

}  // namespace

namespace {

std::uint64_t load_word(Thread& thread, const void* address, unsigned bytes, Order order, const void* code) {
  check_alignment(address, bytes);
  if (repeats(thread, address, value_at(address, bytes))) thread.block->grid->poll(thread, "a loop of loads", code);
  device_access(thread, {address, bytes, Effect::read, atomic_of(bytes)});
  thread.block->grid->races().load(thread, address, order);
  return value_at(address, bytes);
}

}  // namespace

std::uint64_t ordered_load(const void* address, unsigned bytes, Order order) {
  const CoreCall call;
  return load_word(call.thread, address, bytes, order, __builtin_return_address(0));
}

Pair ordered_load_pair(const void* address) {
  const CoreCall call;
  const void* code = __builtin_return_address(0);
  check_alignment(address, 16);
  const auto* words = static_cast<const std::byte*>(address);
  // In either order: the pair is not one access.
  const bool swapped = call.thread.block->grid->scheduler().policy().direction == Direction::descending;
  const std::uint64_t first = load_word(call.thread, words + (swapped ? 8 : 0), 8, Order::relaxed, code);
  const std::uint64_t second = load_word(call.thread, words + (swapped ? 0 : 8), 8, Order::relaxed, code);
  return swapped ? Pair{second, first} : Pair{first, second};
}

void ordered_store(void* address, unsigned bytes, std::uint64_t value, Order order) {
  const CoreCall call;
  Thread& thread = call.thread;
  check_alignment(address, bytes);
  device_access(thread, {address, bytes, Effect::write, atomic_of(bytes)});
  Grid& grid = *thread.block->grid;
  grid.races().store(thread, address, order);
  if (value_at(address, bytes) != value) grid.scheduler().note_progress();
  std::memcpy(address, &value, bytes);
  after_write(thread);
}

std::uint64_t begin_update(void* address, unsigned bytes, Order order) {
  const CoreCall call;
  Thread& thread = call.thread;
  check_alignment(address, bytes);
  device_access(thread, {address, bytes, Effect::update, atomic_of(bytes)});
  thread.block->grid->races().update(thread, address, order);
  return value_at(address, bytes);
}

void end_update(void* address, unsigned bytes, std::uint64_t value) {
  const CoreCall call;
  Thread& thread = call.thread;
  Grid& grid = *thread.block->grid;
  const std::uint64_t old = value_at(address, bytes);
  if (old != value) {
    grid.scheduler().note_progress();
    std::memcpy(address, &value, bytes);
    thread.recent_loads.clear();
    after_write(thread);
  } else if (repeats(thread, address, old)) {
    grid.poll(thread, "a loop of atomic updates", __builtin_return_address(0));
  }
}

void fence() {
  const CoreCall call;
  Thread& thread = call.thread;
  Grid& grid = *thread.block->grid;
  grid.races().fence(thread);
  if (grid.scheduler().policy().interrupt_one_in != 0) grid.yield(thread);
}

// Not in the code for older devices, whichever one it runs on.
void wait_for_dependencies() {
  Thread& thread = device_thread();
  if (thread.block->grid->machine().settings.code_version >= kWaitsFrom) thread.past_dependencies = true;
}

}  // namespace emu
