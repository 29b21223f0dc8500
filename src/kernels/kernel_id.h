#pragma once

namespace fovea {
namespace kernels {

/// Every kernel of entries.inc.
enum class KernelId : unsigned {
#define FOVEA_ENTRY(name, function, threads, Params, ...) name,
#include "entries.inc"
#undef FOVEA_ENTRY
  kCount,
};

}  // namespace kernels
}  // namespace fovea
