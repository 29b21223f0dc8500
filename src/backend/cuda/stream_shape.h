#pragma once

// For .cu files.

namespace fovea::cuda {

/// The blocks of products of few rows that have a multiprocessor each.
struct StreamShape {
  static constexpr int kWarps = 16, kAheadBytes = 64 << 10, kThreads = kWarps * 32;
};

}  // namespace fovea::cuda
