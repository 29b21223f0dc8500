#pragma once

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "backend/buffer.h"
#include "backend/portable/launcher.h"
#include "backend/stream.h"

namespace fovea::portable {

/// Device memory that grows to the largest size asked for and is kept: nothing is allocated after
/// warm-up.
class GrowingBuffer {
 public:
  explicit GrowingBuffer(Device& device) : device_(device) {}

  /// At least `size_bytes`, contents undefined; null, and a stream that has failed, when memory
  /// runs out.
  std::byte* get(Launcher& launcher, Stream& stream, std::size_t size_bytes) {
    if (size_bytes <= buffer_.size_bytes()) return buffer_.data();
    buffer_ = Buffer();  // the old memory first: there may be no room for both
    auto grown = Buffer::create(device_, size_bytes + size_bytes / 4);
    if (!grown.ok()) {
      launcher.fail(stream, std::move(grown).error());
      return nullptr;
    }
    buffer_ = std::move(grown).value();
    return buffer_.data();
  }

 private:
  Device& device_;
  Buffer buffer_;
};

/// A small table of the host, made anew for every call, on the device. Equal contents are not sent
/// again: the layers of a step ask for the same tables.
class DeviceTable {
 public:
  explicit DeviceTable(Device& device) : memory_(device) {}

  /// Null when memory runs out.
  std::byte* put(Launcher& launcher, Stream& stream, std::span<const std::byte> contents) {
    if (data_ != nullptr && contents.size() == sent_.size() &&
        (contents.empty() || std::memcmp(contents.data(), sent_.data(), contents.size()) == 0)) {
      return data_;
    }
    data_ = memory_.get(launcher, stream, std::max<std::size_t>(contents.size(), 16));
    if (data_ == nullptr) return nullptr;
    sent_.assign(contents.begin(), contents.end());
    const auto size = static_cast<std::int64_t>(contents.size());
    if (size > 0) stream.upload(contents, {DType::kU8, {size}, data_});
    return data_;
  }

 private:
  GrowingBuffer memory_;
  std::vector<std::byte> sent_;
  std::byte* data_ = nullptr;
};

}  // namespace fovea::portable
