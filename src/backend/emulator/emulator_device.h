#pragma once

#include <memory>

#include "backend/device.h"

namespace fovea::emulator {

/// A device that runs the kernels for GPUs on the processor, every thread of a block as a fiber:
/// far too slow for work, exact enough for tests. Scratch starts as NaN in each block, its bounds
/// are those of a heap allocation, and under ThreadSanitizer a missing barrier is a race.
/// Streams do all work before a call returns.
std::unique_ptr<Device> create_emulator();

}  // namespace fovea::emulator
