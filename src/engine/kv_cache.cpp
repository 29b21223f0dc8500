#include "engine/kv_cache.h"

#include "base/error.h"
#include "base/try.h"

namespace fovea {

Result<PagedKvCache> PagedKvCache::create(Device& device, const TextConfig& config, DType dtype,
                                          int num_pages, int page_size) {
  PagedKvCache cache(num_pages, page_size);
  const Shape shape{num_pages, config.n_kv_heads,
                    static_cast<std::int64_t>(page_size) * config.head_dim()};
  for (int layer = 0; layer < config.n_layers; ++layer) {
    FOVEA_TRY(Tensor k, Tensor::create(device, dtype, shape));
    FOVEA_TRY(Tensor v, Tensor::create(device, dtype, shape));
    cache.layers_.push_back({k.view(), v.view()});
    cache.memory_.push_back(std::move(k));
    cache.memory_.push_back(std::move(v));
  }
  return cache;
}

std::size_t PagedKvCache::page_bytes(const TextConfig& config, DType dtype, int page_size) {
  return 2 * static_cast<std::size_t>(config.n_layers) *
         static_cast<std::size_t>(config.n_kv_heads) * static_cast<std::size_t>(page_size) *
         static_cast<std::size_t>(config.head_dim()) * dtype_size(dtype);
}

std::size_t PagedKvCache::size_bytes() const {
  std::size_t total = 0;
  for (const Tensor& tensor : memory_) total += tensor.size_bytes();
  return total;
}

}  // namespace fovea
