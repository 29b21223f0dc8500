#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "backend/stream.h"

namespace fovea::conformance {

/// From here on tensors of the tests lie where `device` and the host both reach them; `stream` is
/// what wait_for_device() waits for (null = nothing).
void use_shared_memory_of(std::string_view device, Stream* stream);

/// At least `size_bytes`, aligned to 64 bytes; given back once the device has done its work.
std::shared_ptr<std::byte> allocate_shared_memory(std::size_t size_bytes);

/// Returns when the device has done all that was asked of it; a failure fails the test.
void wait_for_device();

}  // namespace fovea::conformance
