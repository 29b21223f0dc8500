#pragma once

#include <cstddef>
#include <vector>

#include "backend/portable/launcher.h"

namespace fovea::cuda {

/// Launches kernels of kernels/entries.inc on CUDA streams. One thread at a time.
class CudaLauncher final : public portable::Launcher {
 public:
  explicit CudaLauncher(int device_index);

  portable::BlockRoom room() const override { return room_; }
  void launch(Stream& stream, const portable::Launch& launch) override;
  void fail(Stream& stream, Error error) override;

 private:
  int device_index_;
  portable::BlockRoom room_;
  std::vector<std::size_t> allowed_shared_bytes_;  // of each kernel
};

}  // namespace fovea::cuda
