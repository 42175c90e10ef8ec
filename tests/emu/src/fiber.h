// Stackful coroutines of one OS thread. A switch is fifteen instructions: a kernel of a few hundred threads makes
// millions.
#pragma once

#include <cstddef>

namespace emu {

struct Fiber {
  void* stack_pointer = nullptr;
  // What the address sanitizer is told; also filled in for the fiber that an OS thread starts as.
  const void* stack = nullptr;
  std::size_t stack_bytes = 0;
  void* fake_stack = nullptr;
};

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStackBytes = 256 * 1024;
#else
constexpr std::size_t kStackBytes = 128 * 1024;
#endif

// Makes `fiber` run `entry` when it is first switched to, on the kStackBytes at `stack`, below `top`.
void prepare_fiber(Fiber& fiber, std::byte* stack, std::byte* top, void (*entry)());
// The first thing that `entry` does.
void fiber_entered();
// Comes back when somebody switches to `from`; never if it is told so.
void switch_fiber(Fiber& from, Fiber& to, bool for_good = false);

// Stacks of device threads, kept for the life of the process; each ends in a page that nobody may touch.
class StackPool {
 public:
  // Null when there are too many: every stack costs the kernel two mappings, of which a process has 65530.
  std::byte* at(std::size_t index);

 private:
  static constexpr std::size_t kMost = 16384;
  std::byte* stacks_[kMost] = {};
};

}  // namespace emu
