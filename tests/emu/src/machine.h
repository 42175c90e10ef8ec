// Everything that outlives a launch, in one place; it is made at first use and never destroyed, so that what runs at
// the process's end may still use it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>

#include "fiber.h"
#include "host_memory.h"
#include "memory.h"

namespace emu {

constexpr std::size_t kDefaultMemoryLimit = std::size_t{512} << 20;

struct Settings {
  std::uint64_t seed = 0;
  int sm_count = 4;
  std::size_t shared_limit = kMostSharedBytes;  // of a block
  int code_version = 90;                        // of all kernels, as cudaFuncAttributes has it
  std::size_t memory_limit = kDefaultMemoryLimit;
  std::uint64_t step_budget = std::uint64_t{1} << 33;
};

struct Machine {
  // Held by every call of the runtime, and so while a kernel runs.
  std::recursive_mutex mutex;
  Settings settings;
  Memory memory;
  HostMemory host;
  StackPool stacks;
  // Of the latest event in device memory. It rises from launch to launch, so that what earlier launches did is told
  // from what this one does without clearing anything.
  std::uint32_t time = 0;
};

Machine& machine();
// Null until machine() is first called.
Machine* machine_if_made();

}  // namespace emu
