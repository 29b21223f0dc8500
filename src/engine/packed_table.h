#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "fovea/result.h"

#include "backend/buffer.h"
#include "backend/stream.h"
#include "base/math.h"
#include "engine/host_bytes.h"

namespace fovea {

/// Lists of whole numbers that go to a device in one copy, because small copies cost more than what
/// they carry. Filled anew for every step; allocated once.
class PackedTable {
 public:
  PackedTable() = default;

  /// Room for `capacity` numbers in up to `most_lists` lists. Error: kResourceExhausted.
  static Result<PackedTable> create(Device& device, std::int64_t capacity, int most_lists) {
    PackedTable table;
    FOVEA_TRY(table.memory_,
              Tensor::create(device, DType::kI32, {capacity + most_lists * kAlignment}));
    return table;
  }

  void clear() { numbers_.clear(); }
  /// Where the list, and what follows it directly, lies once the table has been sent: i32 [count].
  TensorView add(std::span<const std::int32_t> list, std::span<const std::int32_t> more = {}) {
    const std::int64_t begin = round_up(count_of(numbers_), kAlignment);
    numbers_.resize(static_cast<std::size_t>(begin), 0);
    numbers_.insert(numbers_.end(), list.begin(), list.end());
    numbers_.insert(numbers_.end(), more.begin(), more.end());
    return memory_.view().rows(begin, count_of(numbers_) - begin);
  }
  void send(Stream& stream) { stream.upload(bytes_of(numbers_), memory_.rows(count_of(numbers_))); }

 private:
  static constexpr std::int64_t kAlignment = 16;  // numbers: 64 bytes

  Tensor memory_;
  std::vector<std::int32_t> numbers_;
};

}  // namespace fovea
