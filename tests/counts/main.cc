// Prints, as JSON, every case with the bytes it must move. Under valgrind's callgrind, which must not collect from the
// start, each case's instructions are dumped under its name; without valgrind, the seconds of a call are printed.
#include <gnu/libc-version.h>
#include <valgrind/callgrind.h>
#include <valgrind/valgrind.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <iostream>
#include <sstream>

#include "cases.h"
#include "cpu/isa.h"

namespace nsrt::counts {
namespace {

void count(const Case& c) {
  c.run();  // symbols are bound and buffers grown by the first call
  CALLGRIND_ZERO_STATS;
  CALLGRIND_TOGGLE_COLLECT;
  c.run();
  CALLGRIND_TOGGLE_COLLECT;
  CALLGRIND_DUMP_STATS_AT(c.name.c_str());
}

// The median of some repeats, each of as many calls as a clock can tell apart.
double seconds(const Case& c) {
  using Clock = std::chrono::steady_clock;
  constexpr double kEnough = 1e-3;
  constexpr std::size_t kRepeats = 9;
  const auto timed = [&](int calls) {
    const Clock::time_point begin = Clock::now();
    for (int i = 0; i < calls; ++i) c.run();
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  int calls = 1;
  while (timed(calls) < kEnough && calls < (1 << 20)) calls *= 2;
  std::vector<double> all;
  for (std::size_t i = 0; i < kRepeats; ++i) all.push_back(timed(calls) / calls);
  std::sort(all.begin(), all.end());
  return all[kRepeats / 2];
}

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

void run() {
  const bool counted = RUNNING_ON_VALGRIND != 0;
  const std::unique_ptr<Cases> parts[] = {make_op_cases(), make_stage_cases(DType::kBFloat16),
                                          make_stage_cases(DType::kFloat32)};
  std::ostringstream out;
  out << "{\"compiler\": \"" << compiler() << "\", \"libc\": \"glibc " << gnu_get_libc_version() << "\", \"isa\": \""
      << cpu::kernels().name << "\", \"cases\": [";
  const char* between = "\n";
  for (const auto& part : parts) {
    for (const Case& c : part->all()) {
      out << between << "{\"name\": \"" << c.name << "\", \"bytes\": ";
      if (c.bytes)
        out << *c.bytes;
      else
        out << "null";
      if (counted)
        count(c);
      else
        out << ", \"seconds\": " << seconds(c);
      out << "}";
      between = ",\n";
    }
  }
  std::cout << out.str() << "\n]}" << std::endl;
}

}  // namespace
}  // namespace nsrt::counts

int main() {
  try {
    nsrt::counts::run();
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "error: " << e.what() << std::endl;
    return 1;
  }
}
