#pragma once

#include <string>

#include "io/checkpoint.h"

namespace fovea {

/// Text that differs between checkpoints whose weights differ: a hash of all names, types and
/// shapes, and of the first and last bytes of every tensor, so that gigabytes need not be read. Two
/// checkpoints that differ only deep inside tensors would meet; training changes every number.
std::string fingerprint(const Checkpoint& checkpoint);

}  // namespace fovea
