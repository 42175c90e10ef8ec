#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#error "the emulator switches fibers on x86-64 only"
#endif

extern "C" void nsrt_emu_switch_stacks(void** save, void* load);
asm(R"(
.text
.hidden nsrt_emu_switch_stacks
.globl nsrt_emu_switch_stacks
.type nsrt_emu_switch_stacks,@function
nsrt_emu_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size nsrt_emu_switch_stacks,.-nsrt_emu_switch_stacks
)");

namespace emu {
namespace {

constexpr int kSavedRegisters = 6;
constexpr std::size_t kPage = 4096;

#if defined(__SANITIZE_ADDRESS__)
thread_local Fiber* left = nullptr;

void announce_switch(Fiber& from, Fiber& to, bool for_good) {
  left = &from;
  __sanitizer_start_switch_fiber(for_good ? nullptr : &from.fake_stack, to.stack, to.stack_bytes);
}
void announce_arrival(void* fake_stack) {
  __sanitizer_finish_switch_fiber(fake_stack, &left->stack, &left->stack_bytes);
}
void forget_frames(std::byte* stack) { __asan_unpoison_memory_region(stack, kStackBytes); }
#else
void announce_switch(Fiber&, Fiber&, bool) {}
void announce_arrival(void*) {}
void forget_frames(std::byte*) {}
#endif

}  // namespace

void prepare_fiber(Fiber& fiber, std::byte* stack, std::byte* top, void (*entry)()) {
  forget_frames(stack);
  fiber = {.stack_pointer = nullptr, .stack = stack, .stack_bytes = kStackBytes, .fake_stack = nullptr};
  // As a call leaves it: 16-byte aligned below the return address, of which there is none.
  auto* slot = reinterpret_cast<std::uintptr_t*>(reinterpret_cast<std::uintptr_t>(top) & ~std::uintptr_t{15});
  *--slot = 0;
  *--slot = reinterpret_cast<std::uintptr_t>(entry);
  for (int i = 0; i < kSavedRegisters; ++i) *--slot = 0;
  fiber.stack_pointer = slot;
}

void fiber_entered() { announce_arrival(nullptr); }

void switch_fiber(Fiber& from, Fiber& to, bool for_good) {
  announce_switch(from, to, for_good);
  nsrt_emu_switch_stacks(&from.stack_pointer, to.stack_pointer);
  announce_arrival(from.fake_stack);
}

std::byte* StackPool::at(std::size_t index) {
  if (index >= kMost) return nullptr;
  std::byte*& stack = stacks_[index];
  if (stack == nullptr) {
    void* memory =
        mmap(nullptr, kPage + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
    mprotect(memory, kPage, PROT_NONE);
    stack = static_cast<std::byte*>(memory) + kPage;
  }
  return stack;
}

}  // namespace emu
