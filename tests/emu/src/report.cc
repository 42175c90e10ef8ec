#include "report.h"

#include <cstring>
#include <map>
#include <sstream>

#include "control_state.h"
#include "grid.h"
#include "symbols.h"

namespace emu {
namespace {

std::string triple(const uint3& index) {
  std::ostringstream text;
  text << '(' << index.x << ',' << index.y << ',' << index.z << ')';
  return text.str();
}

std::string array(const std::string& name, std::size_t bytes, std::ptrdiff_t byte) {
  return name + " (" + std::to_string(bytes) + " bytes), byte " + std::to_string(byte);
}

// The array that comes before the byte is the one it was meant to be in.
std::string shared_place(const Block& block, std::size_t offset) {
  std::string name = "dynamic shared memory";
  std::size_t begin = 0, bytes = block.layout.dynamic_bytes;
  for (const auto& found : block.layout.statics) {
    const auto at = static_cast<std::size_t>(found.begin - block.shared);
    if (at <= offset && at >= begin) name = std::string("shared '") + found.name + "'", begin = at, bytes = found.bytes;
  }
  std::size_t number = 0;
  for (const auto& found : block.layout.carved) {
    const auto at = static_cast<std::size_t>(found.begin - block.shared);
    if (at <= offset && at >= begin)
      name = "carved shared array " + std::to_string(number), begin = at, bytes = found.bytes;
    ++number;
  }
  return array(name, bytes, static_cast<std::ptrdiff_t>(offset) - static_cast<std::ptrdiff_t>(begin));
}

}  // namespace

bool same_place(const Caller& a, const Caller& b) {
  if (a.line() != b.line() || a.column() != b.column()) return false;
  return a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0;
}

std::string place(const Caller& at) {
  const char* name = std::strrchr(at.file_name(), '/');
  return std::string(name ? name + 1 : at.file_name()) + ":" + std::to_string(at.line());
}

std::string place(const Memory& memory, std::size_t offset) {
  if (offset < kGlobalBytes) {
    const Memory::Allocation* found = memory.find(offset);
    if (!found) return "global memory that is nobody's";
    return array("global array " + std::to_string(found->number), found->bytes,
                 static_cast<std::ptrdiff_t>(offset) - static_cast<std::ptrdiff_t>(found->begin));
  }
  return shared_place(*device_thread().block, (offset - kGlobalBytes) % kSlotBytes);
}

std::string name_of(const Thread& thread) {
  return "block " + triple(thread.block->index) + " thread " + triple(thread.position->thread) + " [warp " +
         std::to_string(thread.index / kWarpLanes) + " lane " + std::to_string(thread.lane) + "]";
}

std::string name_of(const Grid& grid, std::uint32_t thread_id) {
  const ThreadId id = ThreadId::from_bits(thread_id);
  const std::string by = id.is_copy() ? "a copy started by " : "";
  for (const auto& block : grid.blocks())
    if (block->linear == id.block() && id.thread() < block->threads.size())
      return by + name_of(block->threads[id.thread()]);
  return by + "block " + std::to_string(id.block()) + " thread " + std::to_string(id.thread());
}

std::string failure_context(const Grid& grid, const Thread& thread) {
  std::string text =
      "\n  in " + kernel_name(grid.shape().kernel) + ", " + name_of(thread) + ", seed " + std::to_string(grid.seed());
  for (const std::string& line : source_lines()) text += "\n  at " + line;
  return text;
}

std::string stuck_report(const Grid& grid) {
  struct Group {
    int count = 0;
    std::string threads;
  };
  std::map<std::string, Group> groups;
  bool spins = false;
  for (const auto& block : grid.blocks()) {
    for (const Warp& warp : block->warps) spins |= block->active && (warp.polling || warp.ready);
    for (const Thread& thread : block->threads) {
      if (!thread.running) continue;
      Group& group = groups["block " + triple(block->index) + " in " + thread.doing + " at " +
                            (thread.doing_code ? source_line(thread.doing_code) : place(thread.doing_at))];
      constexpr int kNamed = 4;
      if (group.count < kNamed) group.threads += " " + std::to_string(thread.index);
      if (group.count++ == kNamed) group.threads += " ...";
    }
  }
  std::string text = spins ? "livelock: threads spin and nothing changes" : "deadlock: all threads wait";
  text += "\n  in " + kernel_name(grid.shape().kernel) + ", seed " + std::to_string(grid.seed());
  for (const auto& [what, group] : groups)
    text += "\n  " + std::to_string(group.count) + " thread(s) of " + what + ":" + group.threads;
  return text;
}

}  // namespace emu
