#pragma once

#include <cstdint>

namespace fovea::portable {

/// Threads of most kernels' blocks.
inline constexpr std::uint32_t kThreads = 128;
/// Up to so many rows flat tiles of a product waste less than tall ones.
inline constexpr std::int64_t kMostFlatRows = 16;

}  // namespace fovea::portable
