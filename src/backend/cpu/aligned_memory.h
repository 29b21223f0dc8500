#pragma once

#include <cstddef>
#include <memory>

namespace fovea::cpu {

struct AlignedDelete {
  void operator()(std::byte* data) const noexcept;
};

/// Host memory aligned to 64 bytes (2 MiB when large, so that the kernel can use huge pages).
using AlignedMemory = std::unique_ptr<std::byte, AlignedDelete>;

/// Contents undefined; null when there is no memory left. 0 bytes give a unique pointer as well.
AlignedMemory allocate_aligned(std::size_t size_bytes);

/// Memory that grows to the largest size asked for and is kept: no allocation after warm-up.
class GrowingMemory {
 public:
  /// At least `count` elements, contents undefined. Aborts when memory runs out: an operation that
  /// was begun has no other way to say so.
  template <class T>
  T* get(std::size_t count) {
    return reinterpret_cast<T*>(reserve(count * sizeof(T)));
  }

 private:
  std::byte* reserve(std::size_t size_bytes);

  AlignedMemory memory_;
  std::size_t size_bytes_ = 0;
};

}  // namespace fovea::cpu
