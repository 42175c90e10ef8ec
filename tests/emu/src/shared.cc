// Shared memory of a block: the dynamic bytes at the front of its slot, then static and carved arrays, each between red
// zones.
#include <algorithm>
#include <string>

#include "grid.h"
#include "report.h"

namespace emu {
namespace {

// The next free place in the slot, a red zone away from what comes before.
std::byte* take(Block& block, std::size_t bytes, std::size_t alignment) {
  alignment = std::max<std::size_t>(alignment, 16);
  const std::size_t begin = (block.layout.top + kSharedRedZone + alignment - 1) / alignment * alignment;
  if (begin + bytes + kSharedRedZone > kSlotBytes) fail("too many shared arrays");
  block.layout.top = begin + bytes + kSharedRedZone;
  block.grid->machine().memory.open(block.shared + begin, bytes);
  return block.shared + begin;
}

}  // namespace

void* static_shared(const void* tag, std::size_t bytes, std::size_t alignment, const char* name) {
  const CoreCall call;
  Block& block = *call.thread.block;
  SharedLayout& layout = block.layout;
  for (const auto& found : layout.statics)
    if (found.tag == tag) return found.begin;
  layout.static_bytes += bytes;
  if (layout.static_bytes + layout.dynamic_bytes > block.grid->machine().settings.shared_limit ||
      layout.static_bytes > 48 * 1024)
    fail(std::string("too much static shared memory, with '") + name + "'");
  std::byte* begin = take(block, bytes, alignment);
  layout.statics.push_back({tag, begin, bytes, name});
  return begin;
}

unsigned char* dynamic_shared() { return reinterpret_cast<unsigned char*>(device_thread().block->shared); }

void* carve_shared(const unsigned char* memory, std::size_t offset, std::size_t bytes, std::size_t alignment) {
  const CoreCall call;
  Block& block = *call.thread.block;
  SharedLayout& layout = block.layout;
  if (memory != dynamic_shared()) fail("a SharedCarver works on the block's dynamic memory only");
  if (offset + bytes > layout.dynamic_bytes)
    fail("the kernel takes " + std::to_string(offset + bytes) + " bytes of dynamic shared memory, the launch gave " +
         std::to_string(layout.dynamic_bytes));
  for (const auto& found : layout.carved) {
    if (found.offset == offset && found.bytes == bytes) return found.begin;
    if (offset < found.offset + found.bytes && found.offset < offset + bytes)
      fail("dynamic shared memory is carved in two different ways");
  }
  // From now on it is reached through its arrays only.
  if (layout.carved.empty()) block.grid->machine().memory.close(block.shared, layout.dynamic_bytes);
  std::byte* begin = take(block, bytes, alignment);
  layout.carved.push_back({offset, bytes, begin});
  return begin;
}

}  // namespace emu
