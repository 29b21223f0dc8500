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
/// possible. `arguments` points to each argument. cluster: blocks, neighbours in y, that reach one
/// another's shared memory, where kernels start early.
inline cudaError_t launch_behind(const void* kernel, dim3 grid, unsigned threads,
                                 std::size_t shared_bytes, KernelStream stream, void** arguments,
                                 unsigned cluster = 1) {
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {1, cluster, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream.handle;
  config.attrs = attributes;
  config.numAttrs = !stream.starts_early ? 0 : cluster > 1 ? 2 : 1;
  return cudaLaunchKernelExC(&config, kernel, arguments);
}

/// The same for a kernel with one argument, which may want more scratch than kernels get unasked.
/// These are 48 KB, of which a kernel may have declared up to 16 itself.
template <class Params>
cudaError_t launch_behind(void (*kernel)(Params), dim3 grid, unsigned threads, KernelStream stream,
                          Params params, int shared_bytes = 0, unsigned cluster = 1) {
  constexpr int kUnasked = 32 << 10;
  const void* entry = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > kUnasked) {
    const cudaError_t status =
        cudaFuncSetAttribute(entry, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (status != cudaSuccess) return status;
  }
  void* arguments[] = {&params};
  return launch_behind(entry, grid, threads, static_cast<std::size_t>(shared_bytes), stream,
                       arguments, cluster);
}

}  // namespace fovea::cuda
