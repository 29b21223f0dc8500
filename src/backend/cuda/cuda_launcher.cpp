#include "backend/cuda/cuda_launcher.h"

#include "backend/cuda/cuda_stream.h"
#include "base/check.h"
#include "kernels/cuda_entries.h"

namespace fovea::cuda {
namespace {

constexpr std::size_t kUsualSharedBytes = 48 << 10;  // more has to be asked for, kernel by kernel
constexpr std::uint32_t kLargestCluster = 8;         // that every device with clusters has

portable::BlockRoom room_of(int device_index) {
  int shared_bytes = kUsualSharedBytes, multiprocessors = 1;
  cudaSetDevice(device_index);
  cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device_index);
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device_index);
  return {static_cast<std::size_t>(shared_bytes), kernels_start_early() ? kLargestCluster : 1,
          static_cast<std::uint32_t>(multiprocessors)};
}

}  // namespace

CudaLauncher::CudaLauncher(int device_index)
    : device_index_(device_index),
      room_(room_of(device_index)),
      allowed_shared_bytes_(static_cast<std::size_t>(kernels::KernelId::kCount),
                            kUsualSharedBytes) {}

void CudaLauncher::launch(Stream& stream, const portable::Launch& launch) {
  auto& cuda_stream = static_cast<CudaStream&>(stream);
  const kernels::CudaKernel& kernel = kernels::cuda_kernel(launch.kernel);
  FOVEA_CHECK(launch.threads <= kernel.max_threads && launch.threads % 32 == 0,
              "{}: a block of {} threads, {} at most", kernel.name, launch.threads,
              kernel.max_threads);
  FOVEA_CHECK(
      launch.params.size() == kernel.params_bytes && launch.buffers.size() == kernel.num_buffers,
      "{}: {} bytes of parameters and {} buffers, {} and {} wanted", kernel.name,
      launch.params.size(), launch.buffers.size(), kernel.params_bytes, kernel.num_buffers);
  if (!cuda_stream.check(cudaSetDevice(device_index_), "choosing the device")) return;
  std::size_t& allowed = allowed_shared_bytes_[static_cast<std::size_t>(launch.kernel)];
  if (launch.shared_bytes > allowed) {
    const cudaError_t status =
        cudaFuncSetAttribute(kernel.entry, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(launch.shared_bytes));
    if (!cuda_stream.check(status, kernel.name)) return;
    allowed = launch.shared_bytes;
  }
  // The runtime reads each argument through a pointer to it.
  void* arguments[17] = {const_cast<std::byte*>(launch.params.data())};
  void* buffers[16];
  FOVEA_CHECK(launch.buffers.size() <= std::size(buffers), "{} buffers", launch.buffers.size());
  for (std::size_t i = 0; i < launch.buffers.size(); ++i) {
    buffers[i] = launch.buffers[i];
    arguments[i + 1] = &buffers[i];
  }
  cuda_stream.check(
      launch_behind(kernel.entry, dim3(launch.grid.x, launch.grid.y, launch.grid.z), launch.threads,
                    launch.shared_bytes, cuda_stream.next_launch(), arguments, launch.grid.cluster),
      kernel.name);
}

void CudaLauncher::fail(Stream& stream, Error error) {
  static_cast<CudaStream&>(stream).fail(std::move(error));
}

}  // namespace fovea::cuda
