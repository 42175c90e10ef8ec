#include "emu/control.h"

#include <algorithm>

#include "api.h"
#include "control_state.h"
#include "memory.h"
#include "symbols.h"

namespace emu {
namespace {

struct LaunchCounts {
  std::map<const void*, int> of_kernel;
  std::map<const void*, std::string> names;
};
LaunchCounts& counts() {
  static auto& made = *new LaunchCounts;
  return made;
}

std::lock_guard<std::recursive_mutex> locked() { return std::lock_guard(machine().mutex); }

}  // namespace

std::string kernel_name(const void* kernel) {
  auto [entry, is_new] = counts().names.try_emplace(kernel);
  if (is_new) entry->second = function_name(kernel);
  return entry->second;
}

void count_launch(const void* kernel) { ++counts().of_kernel[kernel]; }

}  // namespace emu

namespace emu::control {

bool race_mode() { return kRace; }

void set_seed(std::uint64_t seed) {
  const auto lock = locked();
  machine().settings.seed = seed;
}

void set_sm_count(int count) {
  const auto lock = locked();
  machine().settings.sm_count = std::max(count, 1);
}

void set_shared_limit(std::size_t bytes) {
  const auto lock = locked();
  machine().settings.shared_limit = std::min(bytes, kMostSharedBytes);
}

void set_code_version(int version) {
  const auto lock = locked();
  machine().settings.code_version = version;
}

void set_memory_limit(std::size_t bytes) {
  const auto lock = locked();
  machine().settings.memory_limit = bytes;
}

void set_step_budget(std::uint64_t steps) {
  const auto lock = locked();
  machine().settings.step_budget = steps;
}

void fail_next(const std::string& function, cudaError_t error, int after) {
  errors().fail_next(function, error, after);
}

std::string last_failure() { return errors().failure(); }

void reset() {
  errors().reset();
  last_error() = cudaSuccess;
}

std::map<std::string, int> launches() {
  const auto lock = locked();
  std::map<std::string, int> named;
  for (const auto& [kernel, count] : counts().of_kernel) named[kernel_name(kernel)] += count;
  return named;
}

void reset_launches() {
  const auto lock = locked();
  counts().of_kernel.clear();
}

}  // namespace emu::control

namespace control = emu::control;

int nsrt_emu_race_mode() { return control::race_mode(); }
void nsrt_emu_set_seed(std::uint64_t seed) { control::set_seed(seed); }
void nsrt_emu_set_sm_count(int count) { control::set_sm_count(count); }
void nsrt_emu_set_shared_limit(std::size_t bytes) { control::set_shared_limit(bytes); }
void nsrt_emu_set_code_version(int version) { control::set_code_version(version); }
void nsrt_emu_set_memory_limit(std::size_t bytes) { control::set_memory_limit(bytes); }
void nsrt_emu_set_step_budget(std::uint64_t steps) { control::set_step_budget(steps); }
void nsrt_emu_fail_next(const char* function, int error, int after) {
  control::fail_next(function, static_cast<cudaError_t>(error), after);
}
void nsrt_emu_reset() { control::reset(); }
void nsrt_emu_reset_launches() { control::reset_launches(); }

const char* nsrt_emu_last_failure() {
  thread_local std::string text;
  text = control::last_failure();
  return text.c_str();
}

const char* nsrt_emu_launches() {
  thread_local std::string text;
  text.clear();
  for (const auto& [name, count] : control::launches()) text += std::to_string(count) + " " + name + "\n";
  return text.c_str();
}
