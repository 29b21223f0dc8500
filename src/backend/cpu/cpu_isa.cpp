#include "backend/cpu/cpu_isa.h"

#include <algorithm>
#include <array>

#include "base/error.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace fovea::cpu {
namespace {

constexpr std::array<std::string_view, 6> kNames = {"generic",     "avx2", "avx512",
                                                    "avx512_bf16", "neon", "neon_bf16"};

}  // namespace

std::vector<const KernelTable*> usable_kernels() {
  std::vector<const KernelTable*> tables;
#if defined(__x86_64__)
  // The compiler's probe also asks whether the operating system saves the wide registers.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) tables.push_back(&kAvx512Bf16Kernels);
  if (avx512) tables.push_back(&kAvx512Kernels);
  if (avx2) tables.push_back(&kAvx2Kernels);
#elif defined(__aarch64__)
  constexpr unsigned long kHwcap2Bf16 = 1ul << 14;
  if ((::getauxval(AT_HWCAP2) & kHwcap2Bf16) != 0) tables.push_back(&kNeonBf16Kernels);
  tables.push_back(&kNeonKernels);
#endif
  tables.push_back(&kGenericKernels);
  return tables;
}

Result<const KernelTable*> choose_kernels(std::string_view name) {
  const std::vector<const KernelTable*> tables = usable_kernels();
  if (name.empty()) return tables.front();
  if (std::find(kNames.begin(), kNames.end(), name) == kNames.end()) {
    return invalid_argument(
        "unknown CPU instruction set \"{}\": generic, avx2, avx512, avx512_bf16, neon or "
        "neon_bf16",
        name);
  }
  for (const KernelTable* table : tables) {
    if (table->name == name) return table;
  }
  return error(ErrorCode::kUnsupported, "this processor cannot run \"{}\"; its best is \"{}\"",
               name, tables.front()->name);
}

}  // namespace fovea::cpu
