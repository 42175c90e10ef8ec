#include "host_memory.h"

#include <link.h>

#include <cstdint>
#include <cstdlib>
#include <iterator>

namespace emu {

void* HostMemory::allocate_pinned(std::size_t bytes) {
  constexpr std::size_t kAlignment = 4096;
  void* p = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  if (p) pinned_[static_cast<std::byte*>(p)] = bytes;
  return p;
}

bool HostMemory::release_pinned(void* p) {
  if (pinned_.erase(static_cast<std::byte*>(p)) == 0) return false;
  std::free(p);
  return true;
}

bool HostMemory::is_pinned(const void* p, std::size_t bytes) const {
  const auto* byte = static_cast<const std::byte*>(p);
  const auto above = pinned_.upper_bound(byte);
  if (above == pinned_.begin()) return false;
  const auto& [begin, size] = *std::prev(above);
  return byte + bytes <= begin + size;
}

bool in_program(const void* p) {
  auto address = reinterpret_cast<std::uintptr_t>(p);
  const auto in_module = [](dl_phdr_info* module, std::size_t, void* wanted) -> int {
    const std::uintptr_t offset = *static_cast<std::uintptr_t*>(wanted) - module->dlpi_addr;
    for (int i = 0; i < module->dlpi_phnum; ++i) {
      const auto& segment = module->dlpi_phdr[i];
      if (segment.p_type == PT_LOAD && offset - segment.p_vaddr < segment.p_memsz) return 1;
    }
    return 0;
  };
  return dl_iterate_phdr(in_module, &address) != 0;
}

}  // namespace emu
