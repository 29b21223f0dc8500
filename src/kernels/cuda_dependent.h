#pragma once

// Kernels that are set up while the kernel in front of them still runs (programmatic dependent
// launch, from compute capability 9.0; nothing before). What a kernel does before
// wait_for_earlier_kernels() may read nothing that an earlier kernel writes, and write nothing.

namespace fovea {
namespace kernels {

/// Behind it, everything that was launched before is done and can be seen.
__device__ __forceinline__ void wait_for_earlier_kernels() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// The next kernel may take the places that this one's blocks leave free.
__device__ __forceinline__ void let_later_kernels_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

}  // namespace kernels
}  // namespace fovea
