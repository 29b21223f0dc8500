#pragma once

// What the CUDA backend needs to know of a kernel. Plain C++: host code includes it.

#include <cstddef>

#include "kernel_id.h"

namespace fovea {
namespace kernels {

struct CudaKernel {
  const char* name;
  const void* entry;  ///< for cudaLaunchKernel
  unsigned max_threads;
  std::size_t params_bytes;
  std::size_t num_buffers;
};

const CudaKernel& cuda_kernel(KernelId id);

}  // namespace kernels
}  // namespace fovea
