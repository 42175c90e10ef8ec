// Operations of a warp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "threads.h"

namespace emu {

// Meets the lanes of `mask`, each with its value, at one place of the source. The last to come calls `finish` before
// the others go on. Returns the values of all lanes.
const LaneValues& meet_lanes(std::uint32_t mask, const char* operation, const void* value, std::size_t bytes,
                             const Caller& caller, void (*finish)(std::uint32_t mask, LaneValues& values) = nullptr);

}  // namespace emu
