#pragma once

// The blocks of products of few rows, and what a device has for them. For .cu files.

#include <cuda_runtime_api.h>

namespace fovea::cuda {

/// The blocks of products of few rows that have a multiprocessor each.
struct StreamShape {
  static constexpr int kWarps = 16, kAheadBytes = 64 << 10, kThreads = kWarps * 32;
};

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
