#pragma once

#include "base/ids.h"

namespace fovea::testing_support {

/// Positions of a page of keys and values, as in the engine.
inline constexpr int kPageSize = 16;
/// What every prompt begins with.
inline constexpr TokenId kBos{0};

}  // namespace fovea::testing_support
