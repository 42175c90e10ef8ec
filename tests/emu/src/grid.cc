#include "grid.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "report.h"

// The launch's, for device code; one launch runs at a time.
dim3 gridDim, blockDim;

namespace emu {

thread_local constinit Thread* current = nullptr;

void refuse_host_call() { throw std::logic_error("a function of device code was called on the host"); }

const Position& position() { return *device_thread().position; }

void fail(std::string what) { device_thread().block->grid->fail(std::move(what)); }

void trap() {
  const CoreCall call;
  fail("__trap()");
}

Grid::Grid(Machine& machine, const GridShape& shape, const KernelCall& call)
    : machine_(machine),
      shape_(shape),
      call_(call),
      scheduler_(machine.settings.seed),
      races_(machine, shape.programmatic, shape.dependencies_since),
      block_threads_(shape.block.x * shape.block.y * shape.block.z),
      block_count_(shape.grid.x * shape.grid.y * shape.grid.z),
      order_(block_count_) {
  std::iota(order_.begin(), order_.end(), 0u);
  const Direction direction = scheduler_.policy().direction;
  if (direction == Direction::descending) std::ranges::reverse(order_);
  if (direction == Direction::random)
    for (unsigned i = block_count_; i > 1; --i) std::swap(order_[i - 1], order_[scheduler_.random().below(i)]);

  const unsigned warps = (block_threads_ + kWarpLanes - 1) / kWarpLanes;
  for (std::size_t slot = 0; slot < shape.resident; ++slot) {
    Block& block = *slots_.emplace_back(std::make_unique<Block>());
    block.grid = this;
    block.slot = slot;
    block.shared = machine.memory.slot(slot);
    block.threads.resize(block_threads_);
    block.warps.resize(warps);
    for (unsigned i = 0; i < warps; ++i) {
      block.warps[i].block = &block;
      block.warps[i].threads = &block.threads[i * kWarpLanes];
      scheduler_.add(block.warps[i]);
    }
  }
}

// ---- blocks

void Grid::start_block(Block& block, unsigned linear) {
  const dim3 grid = shape_.grid;
  block.index = {linear % grid.x, linear / grid.x % grid.y, linear / grid.x / grid.y};
  block.linear = linear;
  block.live = block_threads_;
  block.active = true;
  block.barrier = {};
  machine_.memory.close(block.shared, block.layout.top);
  races_.forget_released(block.shared, kSlotBytes);
  block.layout = {};
  block.layout.dynamic_bytes = block.layout.top = shape_.dynamic_bytes;
  if (shape_.dynamic_bytes > 0) machine_.memory.open(block.shared, shape_.dynamic_bytes);
  for (std::size_t i = 0; i < block.warps.size(); ++i) {
    Warp& warp = block.warps[i];
    const unsigned lanes = std::min(kWarpLanes, block_threads_ - static_cast<unsigned>(i) * kWarpLanes);
    warp.live = lanes == kWarpLanes ? ~0u : (1u << lanes) - 1;
    warp.collectives.clear();
  }
  for (unsigned i = 0; i < block_threads_; ++i) start_thread(block, i);
}

void Grid::start_thread(Block& block, unsigned index) {
  const std::size_t stack_index = block.slot * block_threads_ + index;
  std::byte* stack = machine_.stacks.at(stack_index);
  if (stack == nullptr) throw std::bad_alloc();
  // Staggered: equal offsets in all stacks would fight for the same sets of the cache.
  std::byte* top = stack + kStackBytes - sizeof(Position) - stack_index % 61 * 192;
  top -= reinterpret_cast<std::uintptr_t>(top) % alignof(std::max_align_t);
  const dim3 size = shape_.block;

  Thread& thread = block.threads[index];
  thread = {};
  prepare_fiber(thread.fiber, stack, top, thread_main);
  thread.position = new (top) Position{.thread = {index % size.x, index / size.x % size.y, index / size.x / size.y},
                                       .block = block.index,
                                       .lane = index % kWarpLanes};
  thread.block = &block;
  thread.warp = &block.warps[index / kWarpLanes];
  thread.lane = index % kWarpLanes;
  thread.index = index;
  thread.running = true;
  races_.begin(thread);
  scheduler_.make_ready(thread);
}

void Grid::thread_main() {
  fiber_entered();
  Thread& thread = *current;
  Grid& grid = *thread.block->grid;
  thread.doing = "running";
  grid.call_.run();
  thread.in_core = true;
  grid.end_thread(thread);
  // The block's slot is the host's to fill again.
  grid.run_next(thread.fiber, true);
  __builtin_unreachable();
}

void Grid::end_thread(Thread& thread) {
  Block& block = *thread.block;
  const bool copies_left = !thread.open_copies.empty() ||
                           std::ranges::any_of(thread.copy_groups, [](const auto& group) { return !group.empty(); });
  if (copies_left) fail("a thread ends before its asynchronous copies");
  if (kRace && shape_.programmatic && !thread.past_dependencies)
    fail("a thread of a programmatic launch ends without having waited for its dependencies");
  if (block.barrier.arrived > 0)
    fail("a thread ends while " + std::to_string(block.barrier.arrived) + " of its block wait in __syncthreads at " +
         place(block.barrier.at));
  for (const auto& collective : thread.warp->collectives)
    if (collective->arrived && collective->mask >> thread.lane & 1)
      fail(std::string("a lane ends while its warp waits for it in ") + collective->operation + " at " +
           place(collective->at));
  thread.running = false;
  thread.warp->live &= ~(1u << thread.lane);
  --block.live;
  scheduler_.note_progress();
}

void Grid::refill() {
  for (const auto& slot : slots_) {
    if (slot->active && slot->live == 0) {
      slot->active = false;
      ++ended_;
    }
    if (!slot->active && started_ < block_count_) start_block(*slot, order_[started_++]);
  }
}

bool Grid::some_ended() const {
  return std::ranges::any_of(slots_, [](const auto& slot) { return slot->active && slot->live == 0; });
}

std::string Grid::run() {
  gridDim = shape_.grid;
  blockDim = shape_.block;
  refill();
  while (ended_ < block_count_) {
    run_next(host_);
    if (!failure_.empty()) break;
    if (!some_ended()) {
      failure_ = stuck_report(*this);
      break;
    }
    refill();
  }
  for (const auto& slot : slots_) machine_.memory.close(slot->shared, slot->layout.top);
  return failure_;
}

// ---- switching

void Grid::run_next(Fiber& from, bool for_good) {
  // A block that has ended makes room for another before anything else runs.
  const bool to_host = for_good && (current->block->live == 0 || !failure_.empty());
  Thread* next = to_host ? nullptr : scheduler_.next();
  Fiber& to = next ? next->fiber : host_;
  if (&to == &from) return;
  current = next;
  switch_fiber(from, to, for_good);
}

void Grid::wait(Thread& thread, const char* doing, const Caller& at) {
  step();
  thread.doing = doing;
  thread.doing_at = at;
  run_next(thread.fiber);
  thread.doing = "running";
}

void Grid::yield(Thread& thread) {
  step();
  scheduler_.make_ready(thread);
  scheduler_.leave_warp();
  run_next(thread.fiber);
}

void Grid::poll(Thread& thread, const char* doing, const void* code) {
  scheduler_.make_polling(thread);
  thread.doing_code = code;
  wait(thread, doing, {});
  thread.doing_code = nullptr;
}

void Grid::fail(std::string what) {
  failure_ = std::move(what) + failure_context(*this, *current);
  run_next(current->fiber, true);
  __builtin_unreachable();
}

void Grid::out_of_steps() { fail("the launch has used up its step budget; does a loop never end?"); }

void pause(const char* reason) {
  const CoreCall call;
  call.thread.block->grid->poll(call.thread, reason, __builtin_return_address(0));
}

}  // namespace emu
