#pragma once

#include <cuda_runtime_api.h>
#include <memory>
#include <optional>
#include <vector>

#include "backend/cuda/pinned_memory.h"
#include "backend/stream.h"

namespace fovea::cuda {

/// A CUDA stream with pinned memory through which small copies pass: uploads are read when the call
/// returns and run when their turn comes, downloads are handed over by synchronize(). One thread at
/// a time.
class CudaStream final : public Stream {
 public:
  /// Errors: kResourceExhausted, kDeviceLost.
  static Result<std::unique_ptr<CudaStream>> create(int device_index);
  ~CudaStream() override;

  void upload(std::span<const std::byte> source, TensorView destination) override;
  void download(TensorView source, std::span<std::byte> destination) override;
  Status synchronize() override;

  cudaStream_t handle() const { return handle_; }
  /// Keeps the first failure for synchronize().
  void fail(Error error);
  /// The same for what a call of the runtime returned; false when it failed.
  bool check(cudaError_t status, std::string_view doing);

 private:
  struct Download {
    const std::byte* staged;
    std::span<std::byte> destination;
  };

  CudaStream(int device_index, cudaStream_t handle, PinnedMemory staging)
      : device_index_(device_index), handle_(handle), staging_(std::move(staging)) {}

  // Room for `size` bytes of a copy; null when the copy is better made without.
  std::byte* stage(std::size_t size);

  int device_index_;
  cudaStream_t handle_;
  PinnedMemory staging_;
  std::size_t staged_bytes_ = 0;  // in use by copies that may not have run yet
  std::vector<Download> downloads_;
  std::optional<Error> failure_;
};

}  // namespace fovea::cuda
