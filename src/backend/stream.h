#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "fovea/result.h"

#include "tensor/tensor_view.h"

namespace fovea {

/// An ordered queue of work on one device. Operations enqueue and return; what they read must stay
/// alive and unchanged until synchronize(). One thread uses a stream at a time.
class Stream {
 public:
  virtual ~Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  /// Host bytes -> device tensor of the same size, and back. upload() has read its source when it
  /// returns; what download() writes is there after synchronize().
  virtual void upload(std::span<const std::byte> source, TensorView destination) = 0;
  virtual void download(TensorView source, std::span<std::byte> destination) = 0;

  /// Waits until everything enqueued so far is done. Error: kDeviceLost, with the first failure
  /// since the last call.
  virtual Status synchronize() = 0;

  /// A mark behind everything enqueued so far, and waiting for it without waiting for what came
  /// later; errors as synchronize(). A stream without marks of its own waits for everything.
  virtual std::uint64_t mark() { return 0; }
  virtual Status wait(std::uint64_t mark) {
    (void)mark;
    return synchronize();
  }

 protected:
  Stream() = default;
};

}  // namespace fovea
