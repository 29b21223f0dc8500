#pragma once

namespace fovea {
namespace kernels {

/// Every kernel of entries.inc, by the name it has there.
enum class KernelId : unsigned {
// NOLINTNEXTLINE(readability-identifier-naming)
#define FOVEA_ENTRY(name, function, threads, Params, ...) name,
#include "entries.inc"
#undef FOVEA_ENTRY
  kCount,
};

}  // namespace kernels
}  // namespace fovea
