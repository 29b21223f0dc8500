#include "conformance/shared_memory.h"

#include <bit>
#include <cstdlib>
#include <gtest/gtest.h>
#include <map>
#include <vector>

#if FOVEA_CUDA
#include "backend/cuda/pinned_memory.h"
#endif

namespace fovea::conformance {
namespace {

Stream* current_stream = nullptr;
bool is_pinned = false;

#if FOVEA_CUDA
// Pinning takes long: blocks are kept by size.
std::map<std::size_t, std::vector<std::byte*>>& free_blocks() {
  static std::map<std::size_t, std::vector<std::byte*>> blocks;
  return blocks;
}

std::shared_ptr<std::byte> allocate_pinned(std::size_t size_bytes) {
  const std::size_t size = std::bit_ceil(size_bytes);
  std::vector<std::byte*>& blocks = free_blocks()[size];
  if (blocks.empty()) {
    void* data = nullptr;
    if (cudaHostAlloc(&data, size, cudaHostAllocPortable) != cudaSuccess) std::abort();
    blocks.push_back(static_cast<std::byte*>(data));
  }
  std::byte* data = blocks.back();
  blocks.pop_back();
  return {data, [size](std::byte* block) {
            wait_for_device();
            free_blocks()[size].push_back(block);
          }};
}
#endif

}  // namespace

void use_shared_memory_of(std::string_view device, Stream* stream) {
  is_pinned = device == "cuda";
  current_stream = stream;
}

std::shared_ptr<std::byte> allocate_shared_memory(std::size_t size_bytes) {
#if FOVEA_CUDA
  if (is_pinned) return allocate_pinned(size_bytes);
#endif
  // No larger than asked for: AddressSanitizer sees what lies beyond.
  auto* data = static_cast<std::byte*>(std::aligned_alloc(64, (size_bytes + 63) / 64 * 64));
  if (data == nullptr) std::abort();
  return {data, [](std::byte* block) { std::free(block); }};
}

void wait_for_device() {
  if (!is_pinned || current_stream == nullptr) return;
  const Status status = current_stream->synchronize();
  EXPECT_TRUE(status.ok()) << status.error().message;
}

}  // namespace fovea::conformance
