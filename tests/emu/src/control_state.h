// What is kept for the tests' questions.
#pragma once

#include <string>

namespace emu {

// Looked up once a kernel.
std::string kernel_name(const void* kernel);
void count_launch(const void* kernel);

}  // namespace emu
