#pragma once

#include <cuda_runtime_api.h>

#include "base/error.h"

namespace fovea::cuda {

/// What a call of the CUDA runtime said went wrong, with what was being done.
inline Error cuda_error(ErrorCode code, cudaError_t status, std::string_view doing) {
  return error(code, "{}: {} ({})", doing, cudaGetErrorString(status), cudaGetErrorName(status));
}

}  // namespace fovea::cuda
