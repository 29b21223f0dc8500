#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "backend/cpu/cpu_ops.h"
#include "backend/cpu/parallel_rows.h"
#include "base/check.h"
#include "tensor/half.h"

namespace fovea::cpu {
namespace {

// table [rotary / 2][cos, sin] of one position; dimension i pairs with i + rotary / 2.
void rotate(float* head, const float* table, std::int64_t half) {
  for (std::int64_t i = 0; i < half; ++i) {
    const float cosine = table[2 * i];
    const float sine = table[2 * i + 1];
    const float a = head[i];
    const float b = head[i + half];
    head[i] = a * cosine - b * sine;
    head[i + half] = a * sine + b * cosine;
  }
}

// One head of one position into a page: element d of `head` goes to page[offset + d * step].
template <class T>
void store_head(const float* head, std::int64_t head_dim, std::int64_t step, T* out) {
  for (std::int64_t d = 0; d < head_dim; ++d) {
    if constexpr (sizeof(T) == 2) {
      out[d * step] = f32_to_bf16(head[d]);
    } else {
      out[d * step] = head[d];
    }
  }
}

// The code nearest to x, which a subnormal scale may have left beyond the largest.
void put_code(float x, std::int8_t* to) {
  *to = static_cast<std::int8_t>(std::clamp(std::nearbyint(x), -127.0f, 127.0f));
}
void put_code(float x, std::uint8_t* to) { *to = f32_to_f8e4m3(x); }

// As store_head for codes, i8 or e4m3; the scale goes to `scale`.
template <class Code>
void quantise_head(const float* head, std::int64_t head_dim, std::int64_t step, Code* out,
                   float* scale) {
  constexpr float kLargestCode = std::is_same_v<Code, std::int8_t> ? 127.0f : 448.0f;
  float largest = 0;
  bool finite = true;
  for (std::int64_t d = 0; d < head_dim; ++d) {
    largest = std::max(largest, std::fabs(head[d]));
    finite = finite && std::isfinite(head[d]);
  }
  const float one = largest / kLargestCode;
  *scale = finite ? one : std::numeric_limits<float>::quiet_NaN();
  const bool coded = finite && one > 0;  // a head of zeros has codes 0
  for (std::int64_t d = 0; d < head_dim; ++d) {
    put_code(coded ? head[d] / one : 0.0f, out + d * step);
  }
}

void store_kv(const KvPages& pages, const HeadLayout& heads, std::int64_t slot, std::int64_t head,
              const float* k, const float* v) {
  const std::int64_t head_dim = heads.head_dim;
  const std::int64_t page = slot / heads.page_size;
  const std::int64_t offset = slot % heads.page_size;
  const std::int64_t scale_at = (page * heads.num_kv_heads + head) * heads.page_size + offset;
  const std::int64_t v_at = scale_at * head_dim;
  const std::int64_t k_at = v_at - offset * head_dim + offset;
  const auto quantise = [&]<class Code>(Code*) {
    quantise_head(k, head_dim, heads.page_size, pages.k.as<Code>() + k_at,
                  pages.k_scale.as<float>() + scale_at);
    quantise_head(v, head_dim, 1, pages.v.as<Code>() + v_at, pages.v_scale.as<float>() + scale_at);
  };
  if (pages.k.dtype == DType::kI8) {
    quantise(static_cast<std::int8_t*>(nullptr));
  } else if (pages.k.dtype == DType::kF8E4M3) {
    quantise(static_cast<std::uint8_t*>(nullptr));
  } else if (pages.k.dtype == DType::kBf16) {
    store_head(k, head_dim, heads.page_size, pages.k.as<std::uint16_t>() + k_at);
    store_head(v, head_dim, 1, pages.v.as<std::uint16_t>() + v_at);
  } else {
    store_head(k, head_dim, heads.page_size, pages.k.as<float>() + k_at);
    store_head(v, head_dim, 1, pages.v.as<float>() + v_at);
  }
}

}  // namespace

void CpuOps::check_pages(const KvPages& pages, const HeadLayout& heads) {
  const DType type = pages.k.dtype;
  FOVEA_CHECK(pages.v.dtype == type && can_hold_kv(type), "KV pages of {} and {}", dtype_name(type),
              dtype_name(pages.v.dtype));
  if (!is_coded(type)) return;
  const std::int64_t scales = pages.k.shape[0] * heads.num_kv_heads * heads.page_size;
  FOVEA_CHECK(!pages.k_scale.empty() && !pages.v_scale.empty() &&
                  pages.k_scale.num_elements() == scales && pages.v_scale.num_elements() == scales,
              "KV scales {} and {} for {} positions", pages.k_scale.shape.to_string(),
              pages.v_scale.shape.to_string(), scales);
}

void CpuOps::rope_and_store_kv(Stream&, TensorView rope, TensorView positions, TensorView slots,
                               HeadLayout heads, TensorView qkv, KvPages pages) {
  const std::int64_t rows = positions.num_elements();
  const std::int64_t head_dim = heads.head_dim;
  const std::int64_t width = (heads.num_heads + std::int64_t{2} * heads.num_kv_heads) * head_dim;
  FOVEA_CHECK(rope.shape.rank() == 3 && rope.shape[2] == 2 && 2 * rope.shape[1] <= head_dim,
              "rope {} for heads of {}", rope.shape.to_string(), head_dim);
  FOVEA_CHECK(qkv.num_elements() == rows * width && slots.num_elements() == rows,
              "qkv {}, {} positions, {} slots", qkv.shape.to_string(), rows, slots.num_elements());
  FOVEA_CHECK(heads.page_size % 8 == 0 && heads.page_size > 0 && heads.page_size <= 64,
              "page_size {}", heads.page_size);
  check_pages(pages, heads);
  const std::int64_t half = rope.shape[1];
  const std::int64_t all_slots = pages.k.shape[0] * heads.page_size;
  // By head, not by row: neighbouring positions share cache lines of a page.
  const std::int64_t count = heads.num_heads + heads.num_kv_heads;
  parallel_rows(pool_, count, 4 * rows * head_dim, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = 0; t < rows; ++t) {
      const std::int64_t position = positions.as<std::int32_t>()[t];
      FOVEA_CHECK(position >= 0 && position < rope.shape[0], "position {} of {}", position,
                  rope.shape[0]);
      const std::int64_t slot = slots.as<std::int32_t>()[t];
      FOVEA_CHECK(slot < all_slots, "slot {} of {}", slot, all_slots);
      const float* table = rope.as<float>() + position * half * 2;
      float* row = qkv.as<float>() + t * width;
      for (std::int64_t h = begin; h < end; ++h) {
        float* head = row + h * head_dim;  // q heads, then k heads
        rotate(head, table, half);
        if (h < heads.num_heads || slot < 0) continue;
        const float* v = head + heads.num_kv_heads * head_dim;
        store_kv(pages, heads, slot, h - heads.num_heads, head, v);
      }
    }
  });
}

void CpuOps::copy_pages(Stream&, std::span<const KvPages> layers,
                        std::span<const std::int32_t> from, std::span<const std::int32_t> to) {
  FOVEA_CHECK(from.size() == to.size(), "{} pages to {}", from.size(), to.size());
  if (layers.empty()) return;
  const auto page_bytes = static_cast<std::int64_t>(layers[0].k.rows(0, 1).size_bytes());
  const auto count = static_cast<std::int64_t>(layers.size() * from.size());
  parallel_rows(pool_, count, page_bytes, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      const KvPages& pages = layers[static_cast<std::size_t>(i) / from.size()];
      const std::int64_t source = from[static_cast<std::size_t>(i) % from.size()];
      const std::int64_t destination = to[static_cast<std::size_t>(i) % from.size()];
      const std::int64_t num_pages = pages.k.shape[0];
      FOVEA_CHECK(source >= 0 && source < num_pages && destination >= 0 && destination < num_pages,
                  "page {} to {} of {}", source, destination, num_pages);
      for (const TensorView& pool : {pages.k, pages.v, pages.k_scale, pages.v_scale}) {
        if (pool.empty()) continue;
        const TensorView page = pool.rows(source, 1);
        std::memcpy(pool.rows(destination, 1).data, page.data, page.size_bytes());
      }
    }
  });
}

}  // namespace fovea::cpu
