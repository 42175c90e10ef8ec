#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <thread>

#include "cpu/pool.h"

namespace nsrt::cpu {
namespace {

int affinity() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

// Whole cores of a CPU quota, at least one; `none` where there is no limit. Version 2 writes "max 100000" or
// "200000 100000" in one file, version 1 the two numbers in two.
int quota(int none) {
  double limit = 0, period = 0;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); !(v2 >> limit >> period)) {
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> limit;
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  }
  if (limit <= 0 || period <= 0) return none;
  return std::max(1, static_cast<int>(std::ceil(limit / period)));
}

}  // namespace

int usable_cores() {
  const int cores = affinity();
  return std::min(cores, quota(cores));
}

}  // namespace nsrt::cpu
