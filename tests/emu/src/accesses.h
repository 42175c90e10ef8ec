// Accesses of memory by device code, on their way to the race detector.
#pragma once

#include "race.h"

namespace emu {

// Memory that is no array of the device is left alone if a kernel may touch it: its own stack, pinned memory,
// constants.
void device_access(Thread& thread, const Access& access);
// Fails the launch unless the address is a multiple of `bytes`.
void check_alignment(const void* address, unsigned bytes);

}  // namespace emu
