// Asynchronous copies to shared memory. They land when the seed says: at once, when waited for, or at random; for the
// race detector they are made by a companion of the thread that starts them.
#include <cstring>
#include <utility>

#include "accesses.h"
#include "grid.h"

namespace emu {
namespace {

void land(AsyncCopy& copy) {
  if (!copy.landed) std::memcpy(copy.to, copy.from, copy.bytes);
  copy.landed = true;
}

bool lands_at_once(Scheduler& scheduler) {
  const Arrival arrival = scheduler.policy().copies;
  return arrival == Arrival::at_once || (arrival == Arrival::random && scheduler.random().below(2) == 0);
}

}  // namespace

void copy_async(void* shared, const void* global, unsigned bytes) {
  const CoreCall call;
  Thread& thread = call.thread;
  Grid& grid = *thread.block->grid;
  const auto in_slot = static_cast<std::size_t>(static_cast<std::byte*>(shared) - thread.block->shared);
  if (in_slot >= kSlotBytes) fail("an asynchronous copy must go to the block's shared memory");
  check_alignment(shared, bytes);
  check_alignment(global, bytes);
  device_access(thread, {global, bytes, Effect::read});
  const std::uint32_t time = grid.races().start_copy(thread);
  device_access(thread, {shared, bytes, Effect::write, Atomic::no, true});
  AsyncCopy copy{static_cast<std::byte*>(shared), static_cast<const std::byte*>(global), bytes, false, time};
  if (lands_at_once(grid.scheduler())) land(copy);
  thread.open_copies.push_back(copy);
}

void commit_copies() {
  const CoreCall call;
  Thread& thread = call.thread;
  thread.copy_groups.push_back(std::exchange(thread.open_copies, {}));
}

void wait_for_copies(unsigned newest_groups_left) {
  const CoreCall call;
  Thread& thread = call.thread;
  auto& groups = thread.copy_groups;
  while (groups.size() > newest_groups_left) {
    for (AsyncCopy& copy : groups.front()) {
      land(copy);
      thread.block->grid->races().finish_copy(thread, copy.time);
    }
    groups.erase(groups.begin());
  }
}

}  // namespace emu
