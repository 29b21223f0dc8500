#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>

namespace fovea::cuda {

/// A stream, and whether its device sets kernels up while those in front of them run.
struct KernelStream {
  cudaStream_t handle;
  bool starts_early;
};

/// Launches a kernel that begins with kernels::wait_for_earlier_kernels(), early where that is
/// possible. `arguments` points to each argument.
inline cudaError_t launch_behind(const void* kernel, dim3 grid, unsigned threads,
                                 std::size_t shared_bytes, KernelStream stream, void** arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream.handle;
  config.attrs = &attribute;
  config.numAttrs = stream.starts_early ? 1 : 0;
  return cudaLaunchKernelExC(&config, kernel, arguments);
}

/// The same for a kernel with one argument.
template <class Params>
cudaError_t launch_behind(void (*kernel)(Params), dim3 grid, unsigned threads, KernelStream stream,
                          Params params) {
  void* arguments[] = {&params};
  return launch_behind(reinterpret_cast<const void*>(kernel), grid, threads, 0, stream, arguments);
}

}  // namespace fovea::cuda
