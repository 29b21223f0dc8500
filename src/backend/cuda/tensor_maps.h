#pragma once

// What bulk copies of tensors need of the driver. For .cu files that are compiled for sm_90a alone.

#include <cuda.h>
#include <cuda_runtime_api.h>

namespace fovea::cuda {

/// The driver's cuTensorMapEncodeTiled; null where it has none, or where `kernel`, which is there
/// for one architecture, does not run on the current device.
inline void* tensor_map_encoder(const void* kernel) {
  cudaFuncAttributes attributes{};
  void* encode = nullptr;
  cudaDriverEntryPointQueryResult found{};
  if (cudaFuncGetAttributes(&attributes, kernel) != cudaSuccess ||
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000, cudaEnableDefault,
                                       &found) != cudaSuccess ||
      found != cudaDriverEntryPointSuccess) {
    cudaGetLastError();  // not the next call's
    return nullptr;
  }
  return encode;
}

}  // namespace fovea::cuda
