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
constexpr std::size_t kReservedSharedBytes = 1024;  // of each block

// Of a multiprocessor: room for the largest block.
inline std::size_t sm_shared_bytes(std::size_t block_limit) { return block_limit + kReservedSharedBytes; }

inline int blocks_per_sm(std::size_t threads, std::size_t shared_bytes, std::size_t block_limit) {
  const std::size_t by_shared = sm_shared_bytes(block_limit) / (shared_bytes + kReservedSharedBytes);
  return static_cast<int>(std::min({kSmThreads / threads, by_shared, std::size_t{kSmBlocks}}));
}

}  // namespace emu
