#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fovea/result.h"

#include "backend/device.h"

namespace fovea::cuda {

/// The NVIDIA devices of this machine that this build has code for, as a person would call them.
/// Error: kUnsupported, with the reason why there is none. Never needs a driver to be called.
Result<std::vector<std::string>> probe();

struct CudaOptions {
  int device_index = 0;
  /// Only operations whose rows come out the same to the bit at any batch: slower.
  bool batch_invariant = false;
};

/// Errors: kUnsupported as probe(), kNotFound for a device that is not there, kResourceExhausted.
Result<std::unique_ptr<Device>> create_cuda_device(const CudaOptions& options);

}  // namespace fovea::cuda
