#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>
#include <deque>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "fovea/result.h"

namespace fovea::cuda {

/// A device's memory. What is given back is kept for whoever next wants a piece of the same size,
/// because the runtime stops the device to take memory back; a piece is handed out again once all
/// that was enqueued when it was given back is done. Thread-safe.
class CudaMemory {
 public:
  explicit CudaMemory(int device_index) : device_index_(device_index) {}
  ~CudaMemory();
  CudaMemory(const CudaMemory&) = delete;
  CudaMemory& operator=(const CudaMemory&) = delete;

  /// Errors: kResourceExhausted, kDeviceLost.
  Result<std::byte*> allocate(std::size_t size_bytes);
  void deallocate(std::byte* data) noexcept;

  /// Whose work may still use what is given back.
  void watch(cudaStream_t stream);
  void forget(cudaStream_t stream) noexcept;

  /// What the device has free once nothing is kept; 0 when that cannot be told.
  std::size_t free_bytes();

 private:
  struct Kept {
    std::byte* data;
    std::size_t size_bytes;
    std::vector<cudaEvent_t> uses;  // the ends of what may still read or write it
  };

  static bool is_done(const Kept& kept);
  static void destroy_events(Kept& kept) noexcept;
  std::byte* take_kept(std::size_t size_bytes);
  void keep(std::byte* data, std::size_t size_bytes);
  void release_oldest() noexcept;

  int device_index_;
  std::mutex mutex_;
  std::vector<cudaStream_t> streams_;
  std::unordered_map<std::byte*, std::size_t> sizes_;  // of what is handed out
  std::deque<Kept> kept_;                              // oldest first
  std::size_t kept_bytes_ = 0;
};

}  // namespace fovea::cuda
