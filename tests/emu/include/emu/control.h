// What tests ask of the emulator: how to run, what to fail, what has happened. The same as C functions, for ctypes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace emu::control {

// Is this the build that finds races?
bool race_mode();
// 0 runs lanes, warps and blocks in ascending order, 1 in descending order; others draw the order.
void set_seed(std::uint64_t seed);
// The device that is reported, and how many blocks are resident at a time.
void set_sm_count(int count);
// Bytes of shared memory that a block may have, at most 227 KB; before the first launch of a kernel.
void set_shared_limit(std::size_t bytes);
// What kernels were compiled for, as cudaFuncAttributes has it: 90 is compute capability 9.0. Code for older devices
// has no pdl_wait(). Before the first launch of a kernel.
void set_code_version(int version);
void set_memory_limit(std::size_t bytes);
// A launch fails after that many switches of threads and, in race mode, accesses to memory.
void set_step_budget(std::uint64_t steps);

// After `after` more calls of the API function of that name, one call does nothing and returns `error`.
void fail_next(const std::string& function, cudaError_t error, int after = 0);
// What went wrong in a kernel, in full; empty if nothing has.
std::string last_failure();
// Forgets failures, sticky or to be injected. Memory, streams and settings stay.
void reset();

// Launches by the kernel's name (namespace and template arguments, no parameters), replayed ones too.
std::map<std::string, int> launches();
void reset_launches();

}  // namespace emu::control

#pragma GCC visibility push(default)
extern "C" {
int nsrt_emu_race_mode();
void nsrt_emu_set_seed(std::uint64_t seed);
void nsrt_emu_set_sm_count(int count);
void nsrt_emu_set_shared_limit(std::size_t bytes);
void nsrt_emu_set_code_version(int version);
void nsrt_emu_set_memory_limit(std::size_t bytes);
void nsrt_emu_set_step_budget(std::uint64_t steps);
void nsrt_emu_fail_next(const char* function, int error, int after);
// Valid until the same thread's next call.
const char* nsrt_emu_last_failure();
void nsrt_emu_reset();
// Lines of "<count> <name>"; valid until the same thread's next call.
const char* nsrt_emu_launches();
void nsrt_emu_reset_launches();
}
#pragma GCC visibility pop
