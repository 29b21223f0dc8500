#include "backend/cpu/aligned_memory.h"

#include <cstdlib>
#include <sys/mman.h>

#include "base/check.h"
#include "base/math.h"

namespace fovea::cpu {

void AlignedDelete::operator()(std::byte* data) const noexcept { std::free(data); }

AlignedMemory allocate_aligned(std::size_t size_bytes) {
  constexpr std::size_t kCacheLine = 64;
  constexpr std::size_t kHugePage = std::size_t{2} << 20;
  // Nothing of ours is that large: a wrong size must neither wrap below nor reach an allocator
  // that aborts on it.
  constexpr std::size_t kUnreasonable = std::size_t{1} << 40;
  if (size_bytes >= kUnreasonable) return nullptr;
  const std::size_t alignment = size_bytes >= kHugePage ? kHugePage : kCacheLine;
  const std::size_t rounded = round_up(size_bytes == 0 ? kCacheLine : size_bytes, kCacheLine);
  void* data = nullptr;
  if (::posix_memalign(&data, alignment, rounded) != 0) return nullptr;
  // Only whole huge pages: advice on the last, shared one would reach memory that is not ours.
  if (alignment == kHugePage) ::madvise(data, rounded / kHugePage * kHugePage, MADV_HUGEPAGE);
  return AlignedMemory(static_cast<std::byte*>(data));
}

std::byte* GrowingMemory::reserve(std::size_t size_bytes) {
  if (size_bytes > size_bytes_ || memory_ == nullptr) {
    memory_.reset();
    memory_ = allocate_aligned(size_bytes);
    FOVEA_CHECK(memory_ != nullptr, "no memory for a workspace of {} bytes", size_bytes);
    size_bytes_ = size_bytes;
  }
  return memory_.get();
}

}  // namespace fovea::cpu
