#pragma once

// What a device has for a kernel's blocks. For .cu files.

#include <cuda_runtime_api.h>

namespace fovea::cuda {

/// Multiprocessors of the current device, and the shared memory that a block may have there.
struct DeviceRoom {
  int multiprocessors = 1, shared_bytes = 0;
};
inline DeviceRoom device_room() {
  DeviceRoom room;
  int device = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&room.multiprocessors, cudaDevAttrMultiProcessorCount, device);
  cudaDeviceGetAttribute(&room.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return room;
}

}  // namespace fovea::cuda
