// Words for what the emulator knows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "memory.h"
#include "threads.h"

namespace emu {

class Grid;

bool same_place(const Caller& a, const Caller& b);
// "file.cuh:12".
std::string place(const Caller& at);
// "global array 3 (64 bytes), byte 66", or the shared array's name.
std::string place(const Memory& memory, std::size_t offset);
std::string name_of(const Thread& thread);
std::string name_of(const Grid& grid, std::uint32_t thread_id);
// Kernel, thread, source lines and seed; called where the thread fails.
std::string failure_context(const Grid& grid, const Thread& thread);
// Why no thread can go on.
std::string stuck_report(const Grid& grid);

}  // namespace emu
