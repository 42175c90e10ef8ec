#include "shadow.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

namespace emu {

void Shadow::map(std::size_t bytes) {
  void* memory = mmap(nullptr, bytes / 2 * sizeof(Cell), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  cells_ = static_cast<Cell*>(memory);
}

void Shadow::open(std::size_t offset, std::size_t bytes) {
  if (bytes == 0) return;
  visit(offset, bytes, [](Cell& cell, std::uint32_t mask) {
    cell = {};
    cell.write.allocated = mask & 3;
  });
}

void Shadow::close(std::size_t offset, std::size_t bytes) {
  if (bytes == 0) return;
  const std::size_t first = offset / 2, last = (offset + bytes - 1) / 2;
  std::memset(cells_ + first, 0, (last - first + 1) * sizeof(Cell));
}

void Shadow::initialise(std::size_t offset, std::size_t bytes, std::uint32_t time) {
  if (bytes == 0) return;
  visit(offset, bytes, [time](Cell& cell, std::uint32_t mask) {
    const std::uint32_t allocated = cell.write.allocated, initialised = cell.write.initialised | mask;
    cell = {};
    cell.write = {.time = time,
                  .thread = ThreadId::outside().bits() & 0xffffff,
                  .bytes = mask & 3,
                  .atomic = 0,
                  .allocated = allocated & 3,
                  .initialised = initialised & 3};
  });
}

}  // namespace emu
