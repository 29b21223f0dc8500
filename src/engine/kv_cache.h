#pragma once

#include <span>
#include <vector>

#include "backend/buffer.h"
#include "backend/ops.h"
#include "engine/page_allocator.h"
#include "model/config.h"

namespace fovea {

/// The device memory of keys and values, cut into pages of `page_size` positions that any sequence
/// may use. Every page holds those positions for all layers. K is stored after rotation, V after
/// tau scaling.
class PagedKvCache {
 public:
  /// `dtype` is f32, bf16, or i8 or f8e4m3 with a scale for each position and head. Error:
  /// kResourceExhausted with the size that was asked for.
  static Result<PagedKvCache> create(Device& device, const TextConfig& config, DType dtype,
                                     int num_pages, int page_size);

  /// Device memory of one page of all layers, scales included.
  static std::size_t page_bytes(const TextConfig& config, DType dtype, int page_size);

  std::span<const KvPages> layers() const { return layers_; }
  PageAllocator& pages() { return pages_; }
  int page_size() const { return page_size_; }
  std::size_t size_bytes() const;

 private:
  PagedKvCache(int num_pages, int page_size) : pages_(num_pages), page_size_(page_size) {}

  std::vector<Tensor> memory_;  // k and v of each layer, and their scales
  std::vector<KvPages> layers_;
  PageAllocator pages_;
  int page_size_;
};

}  // namespace fovea
