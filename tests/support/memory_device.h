#pragma once

#include <map>

#include "backend/device.h"
#include "backend/ops.h"
#include "backend/stream.h"
#include "base/check.h"

namespace fovea::testing_support {

/// A device that has memory and nothing else, and counts what is taken. One thread.
class MemoryDevice final : public Device {
 public:
  std::string name() const override { return "memory"; }
  std::string description() const override { return "memory without operations"; }
  Result<std::byte*> allocate(std::size_t size_bytes) override {
    auto* data = new std::byte[size_bytes];
    sizes_[data] = size_bytes;
    bytes_in_use_ += size_bytes;
    return data;
  }
  void deallocate(std::byte* data) noexcept override {
    const auto found = sizes_.find(data);
    if (found == sizes_.end()) return;
    bytes_in_use_ -= found->second;
    sizes_.erase(found);
    delete[] data;
  }
  std::size_t free_memory() override { return 0; }
  Result<std::unique_ptr<Stream>> make_stream() override {
    return Error{ErrorCode::kUnsupported, "a device of memory computes nothing"};
  }
  Ops& ops() override {
    FOVEA_CHECK(false, "a device of memory computes nothing");
    std::abort();
  }

  /// Sum of all live allocations.
  std::size_t bytes_in_use() const { return bytes_in_use_; }

 private:
  std::map<std::byte*, std::size_t> sizes_;
  std::size_t bytes_in_use_ = 0;
};

}  // namespace fovea::testing_support
