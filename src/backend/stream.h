#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "fovea/result.h"

#include "tensor/tensor_view.h"

namespace fovea {

/// An ordered queue of work on one device. Operations enqueue and return; what they read must stay
/// alive and unchanged until they have been waited for. One thread uses a stream at a time.
class Stream {
 public:
  virtual ~Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  /// Host bytes -> device tensor of the same size, and back. upload() has read its source when it
  /// returns; what download() writes is there once it has been waited for.
  virtual void upload(std::span<const std::byte> source, TensorView destination) = 0;
  virtual void download(TensorView source, std::span<std::byte> destination) = 0;

  /// Waits until everything enqueued so far is done. Error: kDeviceLost, with the first failure
  /// since the last call.
  virtual Status synchronize() = 0;

  /// A mark behind everything enqueued so far, and waiting for it without waiting for what came
  /// later. Error: kDeviceLost, with the first failure that came before the mark and was not told
  /// yet. A mark may be waited for again. A stream without marks of its own waits for everything.
  virtual std::uint64_t mark() { return 0; }
  virtual Status wait(std::uint64_t mark) {
    (void)mark;
    return synchronize();
  }

  /// Milliseconds that the device was between two marks that have been waited for; nothing where it
  /// keeps no time, or the marks are long past.
  virtual std::optional<double> ms_between(std::uint64_t begin, std::uint64_t end) {
    (void)begin;
    (void)end;
    return std::nullopt;
  }

 protected:
  Stream() = default;
};

}  // namespace fovea
