// Which instruction set the CPU kernels use, decided at run time.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernel_table.h"

namespace nsrt::cpu {

// Levels this machine can run, best first; the last is always "portable".
std::vector<std::string> isa_levels();

// The level of the environment variable NSRT_ISA, or the best one. Throws InvalidRequest when the variable names a
// level that does not exist or that this machine lacks.
const KernelTable& kernels();
// The level of that name. Throws InvalidRequest likewise.
const KernelTable& kernels(const std::string& level);

}  // namespace nsrt::cpu
