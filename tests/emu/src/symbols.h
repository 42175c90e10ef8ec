// Names and lines of code addresses, by binutils' addr2line; hexadecimal where it knows none.
#pragma once

#include <string>
#include <vector>

namespace emu {

// Without return type and parameters.
std::string function_name(const void* function);
// The line of a call, given where it returns to.
std::string source_line(const void* code);
// The lines of the calls under way here, the innermost first, without those of the emulator.
std::vector<std::string> source_lines();

}  // namespace emu
