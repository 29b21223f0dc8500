#pragma once

#include <cstddef>
#include <utility>

#include "backend/device.h"
#include "base/math.h"
#include "base/try.h"
#include "tensor/tensor_view.h"

namespace fovea {

/// Owns one allocation on a device. Move-only; the device must outlive it.
class Buffer {
 public:
  Buffer() = default;

  static Result<Buffer> create(Device& device, std::size_t size_bytes) {
    FOVEA_TRY(std::byte * data, device.allocate(size_bytes));
    return Buffer(&device, data, size_bytes);
  }

  Buffer(Buffer&& other) noexcept
      : device_(std::exchange(other.device_, nullptr)),
        data_(std::exchange(other.data_, nullptr)),
        size_bytes_(std::exchange(other.size_bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(size_bytes_, other.size_bytes_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (device_ != nullptr) device_->deallocate(data_);
  }

  std::byte* data() const { return data_; }
  std::size_t size_bytes() const { return size_bytes_; }

 private:
  Buffer(Device* device, std::byte* data, std::size_t size_bytes)
      : device_(device), data_(data), size_bytes_(size_bytes) {}

  Device* device_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t size_bytes_ = 0;
};

/// A dense tensor with memory of its own.
class Tensor {
 public:
  Tensor() = default;

  static Result<Tensor> create(Device& device, DType dtype, Shape shape) {
    const TensorView sized{dtype, shape, nullptr};
    FOVEA_TRY(Buffer buffer, Buffer::create(device, sized.size_bytes()));
    return Tensor(std::move(buffer), dtype, shape);
  }

  TensorView view() const { return {dtype_, shape_, buffer_.data()}; }
  /// The first `count` rows: activations are sized once for the largest step and narrowed for each.
  TensorView rows(std::int64_t count) const { return view().rows(0, count); }
  std::size_t size_bytes() const { return buffer_.size_bytes(); }

 private:
  Tensor(Buffer buffer, DType dtype, Shape shape)
      : buffer_(std::move(buffer)), dtype_(dtype), shape_(shape) {}

  Buffer buffer_;
  DType dtype_ = DType::kF32;
  Shape shape_;
};

}  // namespace fovea
