#include "engine/kv_cache.h"

#include "base/error.h"
#include "base/try.h"

namespace fovea {

Result<PagedKvCache> PagedKvCache::create(Device& device, const TextConfig& config, DType dtype,
                                          int num_pages, int page_size) {
  PagedKvCache cache(num_pages, page_size);
  const Shape shape{num_pages, config.n_kv_heads,
                    static_cast<std::int64_t>(page_size) * config.head_dim()};
  const Shape scales{num_pages, config.n_kv_heads, page_size};
  const auto add = [&](DType element, const Shape& wanted, TensorView& view) -> Status {
    FOVEA_TRY(Tensor tensor, Tensor::create(device, element, wanted));
    view = tensor.view();
    cache.memory_.push_back(std::move(tensor));
    return {};
  };
  for (int layer = 0; layer < config.n_layers; ++layer) {
    KvPages pages;
    FOVEA_TRY_STATUS(add(dtype, shape, pages.k));
    FOVEA_TRY_STATUS(add(dtype, shape, pages.v));
    if (is_coded(dtype)) {
      FOVEA_TRY_STATUS(add(DType::kF32, scales, pages.k_scale));
      FOVEA_TRY_STATUS(add(DType::kF32, scales, pages.v_scale));
    }
    cache.layers_.push_back(pages);
  }
  return cache;
}

std::size_t PagedKvCache::page_bytes(const TextConfig& config, DType dtype, int page_size) {
  const std::size_t head = static_cast<std::size_t>(config.head_dim()) * dtype_size(dtype) +
                           (is_coded(dtype) ? dtype_size(DType::kF32) : 0);
  return 2 * static_cast<std::size_t>(config.n_layers) *
         static_cast<std::size_t>(config.n_kv_heads) * static_cast<std::size_t>(page_size) * head;
}

std::size_t PagedKvCache::size_bytes() const {
  std::size_t total = 0;
  for (const Tensor& tensor : memory_) total += tensor.size_bytes();
  return total;
}

}  // namespace fovea
