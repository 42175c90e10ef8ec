#include "core/memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "nextstep_rt/engine.h"

namespace nsrt {
namespace {

constexpr std::uint64_t kUnknown = std::numeric_limits<std::uint64_t>::max();

std::uint64_t read_number(const std::string& path) {
  std::ifstream in(path);
  std::uint64_t value = 0;
  return in >> value ? value : kUnknown;  // "max" where a cgroup has no limit
}

// Page cache of a group, which the kernel gives back: mapped weights count there.
std::uint64_t reclaimable(const std::string& stat_path) {
  std::ifstream in(stat_path);
  std::string key;
  std::uint64_t value = 0, sum = 0;
  while (in >> key >> value)
    if (key == "active_file" || key == "inactive_file") sum += value;
  return sum;
}

// One level of a cgroup hierarchy, by the file names of its version.
std::uint64_t level_available(const std::string& folder, const char* limit_file, const char* usage_file) {
  const std::uint64_t limit = read_number(folder + limit_file), used = read_number(folder + usage_file);
  if (limit == kUnknown || used == kUnknown) return kUnknown;
  const std::uint64_t held = used - std::min(used, reclaimable(folder + "/memory.stat"));
  return limit > held ? limit - held : 0;
}

// The least over this process's group and those above it. /proc/self/cgroup has lines "id:controllers:path".
std::uint64_t cgroup_available() {
  std::uint64_t least = kUnknown;
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool v2 = controllers.empty();
    if (!v2 && controllers.find("memory") == std::string::npos) continue;
    const std::string root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    std::string path = line.substr(second + 1);
    for (;;) {
      if (path == "/") path.clear();
      least = std::min(least, v2 ? level_available(root + path, "/memory.max", "/memory.current")
                                 : level_available(root + path, "/memory.limit_in_bytes", "/memory.usage_in_bytes"));
      if (path.empty()) break;
      path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
    }
  }
  return least;
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
  const std::uint64_t least = std::min(machine_available(), cgroup_available());
  return least == kUnknown ? 0 : least;
}

}  // namespace nsrt
