// What a compiler calls under -fsanitize=thread. The sanitizer's own library is never linked. The same calls come from
// host code in the same files, on any thread, before main() too: they must be cheap there.
#include <cstddef>
#include <cstdint>

#include "accesses.h"
#include "api.h"
#include "machine.h"

namespace {

inline void on_access(const void* address, std::size_t bytes, emu::Effect effect) {
  if (emu::Thread* thread = emu::current) {
    if (thread->in_core) return;
    thread->in_core = true;
    emu::device_access(*thread, {address, static_cast<unsigned>(bytes), effect});
    thread->in_core = false;
    return;
  }
  const emu::Machine* machine = emu::machine_if_made();
  if (machine && machine->memory.contains(address)) [[unlikely]]
    emu::refuse_host_access(address);
}

}  // namespace

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_read_range(void* p, unsigned long bytes) { on_access(p, bytes, emu::Effect::read); }
void __tsan_write_range(void* p, unsigned long bytes) { on_access(p, bytes, emu::Effect::write); }

#define NSRT_EMU_HOOKS(n)                                                        \
  void __tsan_read##n(void* p) { on_access(p, n, emu::Effect::read); }           \
  void __tsan_write##n(void* p) { on_access(p, n, emu::Effect::write); }         \
  void __tsan_unaligned_read##n(void* p) { on_access(p, n, emu::Effect::read); } \
  void __tsan_unaligned_write##n(void* p) { on_access(p, n, emu::Effect::write); }
NSRT_EMU_HOOKS(1)
NSRT_EMU_HOOKS(2)
NSRT_EMU_HOOKS(4)
NSRT_EMU_HOOKS(8)
NSRT_EMU_HOOKS(16)

// Atomics of the host's own code, such as the guards of local statics; kernels have theirs in ptx.cuh.
#define NSRT_EMU_ATOMICS(bits, T)                                                                                   \
  T __tsan_atomic##bits##_load(const volatile T* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }           \
  void __tsan_atomic##bits##_store(volatile T* p, T x, int) { __atomic_store_n(p, x, __ATOMIC_SEQ_CST); }           \
  T __tsan_atomic##bits##_exchange(volatile T* p, T x, int) { return __atomic_exchange_n(p, x, __ATOMIC_SEQ_CST); } \
  T __tsan_atomic##bits##_fetch_add(volatile T* p, T x, int) { return __atomic_fetch_add(p, x, __ATOMIC_SEQ_CST); } \
  T __tsan_atomic##bits##_fetch_sub(volatile T* p, T x, int) { return __atomic_fetch_sub(p, x, __ATOMIC_SEQ_CST); } \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T* p, T* expected, T x, int, int) {                    \
    return __atomic_compare_exchange_n(p, expected, x, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                  \
  }                                                                                                                 \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile T* p, T* expected, T x, int, int) {                      \
    return __atomic_compare_exchange_n(p, expected, x, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                   \
  }
NSRT_EMU_ATOMICS(8, std::uint8_t)
NSRT_EMU_ATOMICS(32, std::uint32_t)
NSRT_EMU_ATOMICS(64, std::uint64_t)
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

}  // extern "C"
