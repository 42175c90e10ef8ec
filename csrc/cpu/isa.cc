#include "cpu/isa.h"

#include <cstdlib>

#include "core/check.h"

namespace nsrt::cpu {
namespace {

std::vector<const KernelTable*> supported() {
  std::vector<const KernelTable*> levels;
#if defined(NSRT_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) levels.push_back(&avx512_bf16::kTable);
  if (avx512) levels.push_back(&avx512::kTable);
  if (avx2) levels.push_back(&avx2::kTable);
#endif
  levels.push_back(&portable::kTable);
  return levels;
}

}  // namespace

std::vector<std::string> isa_levels() {
  std::vector<std::string> names;
  for (const KernelTable* table : supported()) names.emplace_back(table->name);
  return names;
}

const KernelTable& kernels(const std::string& level) {
  std::string known;
  for (const KernelTable* table : supported()) {
    if (table->name == level) return *table;
    known += (known.empty() ? "" : ", ") + std::string(table->name);
  }
  throw InvalidRequest(
      str("instruction set '", level, "' is not to be had (NSRT_ISA names one); this machine has: ", known));
}

const KernelTable& kernels() {
  const char* wanted = std::getenv("NSRT_ISA");
  return wanted == nullptr || *wanted == '\0' ? *supported().front() : kernels(std::string(wanted));
}

}  // namespace nsrt::cpu
