// How many blocks are resident at a time: as many as threads and shared memory of a multiprocessor allow. Registers are
// not known here.
#pragma once

#include <algorithm>
#include <cstddef>

#include "memory.h"
#include "threads.h"

namespace emu {

constexpr int kMostBlockThreads = 1024;
constexpr int kSmThreads = 2048;
constexpr int kSmBlocks = 32;
constexpr int kSmSharedBytes = 228 * 1024;
constexpr std::size_t kReservedSharedBytes = 1024;  // of each block

inline int blocks_per_sm(std::size_t threads, std::size_t shared_bytes) {
  const std::size_t by_shared = kSmSharedBytes / (shared_bytes + kReservedSharedBytes);
  return static_cast<int>(std::min({kSmThreads / threads, by_shared, std::size_t{kSmBlocks}}));
}

}  // namespace emu
