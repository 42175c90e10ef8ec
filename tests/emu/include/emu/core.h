// What kernel code calls in the emulator's core. Nothing here is a template over the core's state: kernels may be
// compiled with instrumentation, the core never is.
#pragma once

#include <vector_types.h>

#include <cstddef>
#include <cstdint>
#include <source_location>

namespace emu {

// Barriers and warp operations must be met at one place of the source by all who take part.
using Caller = std::source_location;

// Where a device thread is. It lies on the thread's own stack, so that reading it is nobody's business.
struct Position {
  uint3 thread, block;
  unsigned lane;
};
[[gnu::const]] const Position& position();

// ---- meeting other threads

enum class Vote { any, all, count };
int block_barrier(int predicate, Vote vote, const Caller& caller);
void warp_barrier(std::uint32_t mask, const Caller& caller);
// Replaces *value by that of lane `source`.
void shuffle(std::uint32_t mask, const char* operation, void* value, unsigned bytes, unsigned source,
             const Caller& caller);
enum class Reduction { sum, smallest, largest, smallest_unsigned, largest_unsigned, bits_or, bits_and, bits_xor };
std::uint32_t reduce(std::uint32_t mask, Reduction reduction, std::uint32_t value, const Caller& caller);
std::uint32_t live_lanes();
// d += a * b in the fragments of mma.m16n8k16 (bf16 in, float32 sums).
void multiply_tiles_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const Caller& caller);

// ---- memory

enum class Order { relaxed, acquire, release, acquire_release };
std::uint64_t ordered_load(const void* address, unsigned bytes, Order order);
struct Pair {
  std::uint64_t first, second;
};
Pair ordered_load_pair(const void* address);
void ordered_store(void* address, unsigned bytes, std::uint64_t value, Order order);
// A read-modify-write is what happens between the two: nobody else runs there.
std::uint64_t begin_update(void* address, unsigned bytes, Order order);
void end_update(void* address, unsigned bytes, std::uint64_t value);
void fence();
// A load through the read-only path: the memory must not change while this kernel may run.
void check_constant(const void* address, unsigned bytes);
void copy_async(void* shared, const void* global, unsigned bytes);
void commit_copies();
void wait_for_copies(unsigned newest_groups_left);

// ---- shared memory

void* static_shared(const void* tag, std::size_t bytes, std::size_t alignment, const char* name);
unsigned char* dynamic_shared();
// The sub-array at `offset` of the dynamic block, moved away from its neighbours.
void* carve_shared(const unsigned char* block, std::size_t offset, std::size_t bytes, std::size_t alignment);

// ---- the rest

void wait_for_dependencies();
// Lets others run; a thread that spins must come here.
void pause(const char* reason);
[[noreturn]] void trap();

}  // namespace emu
