// Memory of the host that kernels may touch.
#pragma once

#include <cstddef>
#include <map>

namespace emu {

class HostMemory {
 public:
  void* allocate_pinned(std::size_t bytes);
  bool release_pinned(void* p);
  bool is_pinned(const void* p, std::size_t bytes) const;

 private:
  std::map<const std::byte*, std::size_t> pinned_;
};

// In the code or data of the program or of a library: where a kernel's constants are.
bool in_program(const void* p);

}  // namespace emu
