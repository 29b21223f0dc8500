#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fovea/result.h"

#include "backend/device.h"

namespace fovea {

/// What one backend found on this machine.
struct BackendInfo {
  std::string name;  ///< "cpu"
  bool available = false;
  std::string description;  ///< the device, or why there is none
};

struct DeviceOptions {
  int num_threads = 0;  ///< CPU threads, the caller's included; 0 = every usable processor
  /// Forces "generic", "avx2", "avx512", "avx512_bf16", "neon" or "neon_bf16" (the last of each
  /// pair has the bf16 dot product); empty = the best this processor has.
  std::string cpu_isa = "";
  /// A GPU's rows come out the same to the bit at any batch, as the processor's always do; slower.
  bool batch_invariant = false;
};

/// Every backend of this build, usable or not. Cheap; never fails.
std::vector<BackendInfo> list_backends();

/// Creates the device that `name` asks for: "auto", "cpu", "cuda", "cuda:1", or "emulator" (the
/// kernels for GPUs on the processor, for tests). "auto" is the processor. Errors: kInvalidArgument
/// for an unknown name or ISA, kUnsupported when the machine lacks it.
Result<std::unique_ptr<Device>> create_device(std::string_view name, const DeviceOptions& options);

}  // namespace fovea
