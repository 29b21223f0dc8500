#pragma once

#include <string_view>
#include <vector>

#include "fovea/result.h"

#include "backend/cpu/isa/kernel_table.h"

namespace fovea::cpu {

/// The kernel tables that this processor can run, best first; "generic" is always the last.
std::vector<const KernelTable*> usable_kernels();

/// The table called `name`; empty = the best. Errors: kInvalidArgument for a name that no build
/// has, kUnsupported when this build or this processor lacks it.
Result<const KernelTable*> choose_kernels(std::string_view name);

}  // namespace fovea::cpu
