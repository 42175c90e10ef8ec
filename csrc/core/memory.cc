#include "core/memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "nextstep_rt/engine.h"

namespace nsrt {
namespace {

constexpr std::uint64_t kUnknown = std::numeric_limits<std::uint64_t>::max();

std::uint64_t read_number(const char* path) {
  std::ifstream in(path);
  std::uint64_t value = 0;
  return in >> value ? value : kUnknown;  // "max" where a cgroup has no limit
}

// Version 2 or 1 of the interface; what the group uses includes page cache, which the kernel gives back.
std::uint64_t cgroup_available(const char* limit_path, const char* usage_path) {
  const std::uint64_t limit = read_number(limit_path), used = read_number(usage_path);
  if (limit == kUnknown || used == kUnknown) return kUnknown;
  return limit > used ? limit - used : 0;
}

std::uint64_t machine_available() {
  std::ifstream in("/proc/meminfo");
  std::string key;
  std::uint64_t kib = 0;
  std::string unit;
  while (in >> key >> kib && std::getline(in, unit))
    if (key == "MemAvailable:") return kib * 1024;
  return kUnknown;
}

}  // namespace

std::uint64_t available_memory() {
  const std::uint64_t least = std::min(
      {machine_available(), cgroup_available("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
       cgroup_available("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes")});
  return least == kUnknown ? 0 : least;
}

}  // namespace nsrt
