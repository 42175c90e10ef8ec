// Device threads, and what they are grouped in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "clocks.h"
#include "emu/core.h"
#include "fiber.h"

namespace emu {

class Grid;
struct Block;
struct Warp;

struct AsyncCopy {
  std::byte* to;
  const std::byte* from;
  unsigned bytes;
  bool landed;
  std::uint32_t time;
};

// A thread's part in finding races.
struct Causality {
  ThreadId id;
  std::uint32_t time = 0, copy_time = 0;
  Clock seen;              // what happened before this thread's next step
  Clock fence_released;    // what a relaxed store passes on: seen at the last fence
  Clock fence_to_acquire;  // what relaxed loads saw, to be had at the next fence
};

struct Thread {
  Fiber fiber;
  const Position* position = nullptr;
  Block* block = nullptr;
  Warp* warp = nullptr;
  unsigned lane = 0, index = 0;  // index: in the block
  bool running = false;          // has begun, or will, and has not ended
  bool in_core = false;
  bool past_dependencies = false;
  // For the report of a deadlock.
  const char* doing = "not started";
  Caller doing_at;
  const void* doing_code = nullptr;  // where the place in the source is not known: what called the core
  // Of the ordered kind; to know a loop that waits for others.
  struct Load {
    const void* address;
    std::uint64_t value;
  };
  std::vector<Load> recent_loads;
  std::vector<AsyncCopy> open_copies;
  std::vector<std::vector<AsyncCopy>> copy_groups;
  Causality causality;
};

constexpr unsigned kWarpLanes = 32;
constexpr std::size_t kLaneBytes = 64;
using LaneValues = std::byte[kWarpLanes][kLaneBytes];

// A warp operation of the lanes in `mask`. Two generations of values: one may begin while slow lanes still read the
// last.
struct Collective {
  std::uint32_t mask = 0, arrived = 0;
  unsigned generation = 0;
  const char* operation = "";
  Caller at;
  alignas(16) LaneValues values[2];
};

struct Warp {
  std::uint32_t ready = 0, polling = 0, live = 0;
  unsigned index = 0;  // in the scheduler
  Block* block = nullptr;
  Thread* threads = nullptr;
  std::vector<std::unique_ptr<Collective>> collectives;
};

struct BlockBarrier {
  struct Votes {
    bool any = false, all = true;
    int count = 0;
  };
  unsigned arrived = 0;
  Caller at;
  Votes votes, result;
  std::vector<Thread*> waiting;
};

// Where the shared arrays of a block are.
struct SharedLayout {
  struct Static {
    const void* tag;
    std::byte* begin;
    std::size_t bytes;
    const char* name;
  };
  struct Carved {
    std::size_t offset, bytes;
    std::byte* begin;
  };
  std::size_t dynamic_bytes = 0, static_bytes = 0;
  std::size_t top = 0;  // of what is used in the slot
  std::vector<Static> statics;
  std::vector<Carved> carved;
};

struct Block {
  Grid* grid = nullptr;
  uint3 index{};
  unsigned linear = 0;
  std::size_t slot = 0;
  unsigned live = 0;
  bool active = false;
  std::byte* shared = nullptr;
  SharedLayout layout;
  BlockBarrier barrier;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
};

// The device thread that this OS thread executes; null on the host. Initial-exec, because instrumented code asks for it
// at every access.
extern thread_local constinit Thread* current __attribute__((tls_model("initial-exec")));
[[noreturn]] void refuse_host_call();
// The same for functions that only device code may call.
inline Thread& device_thread() {
  if (current == nullptr) [[unlikely]]
    refuse_host_call();
  return *current;
}

// A call of device code into the core. Until it ends, accesses are the core's own and not checked: the linker may have
// given the core instrumented copies of the standard library's templates.
class CoreCall {
 public:
  CoreCall() : thread(device_thread()), outer_(thread.in_core) { thread.in_core = true; }
  ~CoreCall() { thread.in_core = outer_; }
  CoreCall(const CoreCall&) = delete;
  CoreCall& operator=(const CoreCall&) = delete;
  Thread& thread;

 private:
  bool outer_;
};

}  // namespace emu
