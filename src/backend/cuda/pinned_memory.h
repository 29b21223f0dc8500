#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>
#include <utility>

#include "fovea/result.h"

#include "backend/cuda/cuda_error.h"

namespace fovea::cuda {

/// Host memory that a device copies from and to without waiting, and may read and write itself.
/// Move-only.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  static Result<PinnedMemory> create(std::size_t size_bytes) {
    void* data = nullptr;
    const cudaError_t status = cudaHostAlloc(&data, size_bytes, cudaHostAllocPortable);
    if (status != cudaSuccess) {
      cudaGetLastError();  // not the next call's
      return cuda_error(ErrorCode::kResourceExhausted, status, "pinning host memory");
    }
    return PinnedMemory(static_cast<std::byte*>(data), size_bytes);
  }
  PinnedMemory(PinnedMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_bytes_(std::exchange(other.size_bytes_, 0)) {}
  PinnedMemory& operator=(PinnedMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_bytes_, other.size_bytes_);
    return *this;
  }
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;
  ~PinnedMemory() {
    if (data_ != nullptr) cudaFreeHost(data_);
  }

  std::byte* data() const { return data_; }
  std::size_t size_bytes() const { return size_bytes_; }

 private:
  PinnedMemory(std::byte* data, std::size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}

  std::byte* data_ = nullptr;
  std::size_t size_bytes_ = 0;
};

}  // namespace fovea::cuda
