#include "cpu/isa.h"

#include <cstdlib>

#if defined(NSRT_X86)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "core/check.h"

namespace nsrt::cpu {
namespace {

#if defined(NSRT_X86)
// Tiles are to be had where the CPU has them and the system saves their state for this process, which must ask.
bool has_tiles() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kTile = 1u << 24, kBf16 = 1u << 22;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kTile) == 0 || (d & kBf16) == 0) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl(2): ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

std::vector<const KernelTable*> supported() {
  std::vector<const KernelTable*> levels;
#if defined(NSRT_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
  static const bool tiles = has_tiles();
  if (bf16 && tiles) levels.push_back(&amx_bf16::kTable);
  if (bf16) levels.push_back(&avx512_bf16::kTable);
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
