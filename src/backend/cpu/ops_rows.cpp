#include <cmath>
#include <cstring>

#include "backend/cpu/cpu_ops.h"
#include "backend/cpu/parallel_rows.h"
#include "base/check.h"
#include "base/math.h"
#include "tensor/half.h"

namespace fovea::cpu {
namespace {

void copy_row(const float* from, float* to, std::int64_t width) {
  std::memcpy(to, from, static_cast<std::size_t>(width) * sizeof(float));
}

}  // namespace

void CpuOps::embed(Stream&, TensorView table, TensorView ids, TensorView y) {
  const std::int64_t width = table.shape.back();
  FOVEA_CHECK(y.num_elements() == ids.num_elements() * width, "y {} for {} ids of width {}",
              y.shape.to_string(), ids.num_elements(), width);
  FOVEA_CHECK(table.dtype == DType::kF32 || table.dtype == DType::kBf16, "table of {}",
              dtype_name(table.dtype));
  parallel_rows(pool_, ids.num_elements(), width, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t id = ids.as<std::int32_t>()[t];
      if (id < 0) continue;
      FOVEA_CHECK(id < table.shape[0], "id {} of a vocabulary of {}", id, table.shape[0]);
      float* out = y.as<float>() + t * width;
      if (table.dtype == DType::kF32) {
        copy_row(table.as<float>() + id * width, out, width);
      } else {
        const std::uint16_t* in = table.as<std::uint16_t>() + id * width;
        for (std::int64_t i = 0; i < width; ++i) out[i] = bf16_to_f32(in[i]);
      }
    }
  });
}

void CpuOps::scatter_rows(Stream&, TensorView x, TensorView rows, TensorView y) {
  const std::int64_t width = y.shape.back();
  FOVEA_CHECK(x.num_elements() == rows.num_elements() * width, "x {}, {} rows of {}",
              x.shape.to_string(), rows.num_elements(), width);
  // One thread: two equal rows would race, and a copy is bound by memory anyway.
  for (std::int64_t m = 0; m < rows.num_elements(); ++m) {
    const std::int64_t row = rows.as<std::int32_t>()[m];
    FOVEA_CHECK(row >= 0 && row < y.shape[0], "row {} of {}", row, y.shape[0]);
    copy_row(x.as<float>() + m * width, y.as<float>() + row * width, width);
  }
}

void CpuOps::gather_rows(Stream&, TensorView x, TensorView rows, TensorView y) {
  const std::int64_t width = x.shape.back();
  FOVEA_CHECK(y.num_elements() == rows.num_elements() * width, "y {}, {} rows of {}",
              y.shape.to_string(), rows.num_elements(), width);
  for (std::int64_t m = 0; m < rows.num_elements(); ++m) {
    const std::int64_t row = rows.as<std::int32_t>()[m];
    FOVEA_CHECK(row >= 0 && row < x.shape[0], "row {} of {}", row, x.shape[0]);
    copy_row(x.as<float>() + row * width, y.as<float>() + m * width, width);
  }
}

void CpuOps::layer_norm(Stream&, TensorView x, TensorView weight, TensorView bias, float eps,
                        TensorView y) {
  const std::int64_t width = x.shape.back();
  FOVEA_CHECK(weight.num_elements() == width && bias.num_elements() == width &&
                  y.num_elements() == x.num_elements(),
              "x {}, weight {}, bias {}, y {}", x.shape.to_string(), weight.shape.to_string(),
              bias.shape.to_string(), y.shape.to_string());
  const std::int64_t rows = width == 0 ? 0 : x.num_elements() / width;
  parallel_rows(pool_, rows, width, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      kernels_.layer_norm(x.as<float>() + t * width, weight.as<float>(), bias.as<float>(), eps,
                          y.as<float>() + t * width, width);
    }
  });
}

void CpuOps::tau_scale(Stream&, TensorView tau, TensorView position_scale, TensorView positions,
                       HeadLayout heads, TensorView qkv) {
  FOVEA_CHECK(heads.num_heads == heads.num_kv_heads, "tau with {} heads over {}", heads.num_heads,
              heads.num_kv_heads);
  const std::int64_t num_heads = heads.num_heads;
  const std::int64_t head_dim = heads.head_dim;
  const std::int64_t width = 3 * num_heads * head_dim;
  const std::int64_t rows = positions.num_elements();
  FOVEA_CHECK(qkv.num_elements() == rows * width && tau.num_elements() == rows * 2 * num_heads,
              "qkv {}, tau {}, {} rows", qkv.shape.to_string(), tau.shape.to_string(), rows);
  parallel_rows(pool_, rows, width, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t position = positions.as<std::int32_t>()[t];
      FOVEA_CHECK(position >= 0 && position < position_scale.shape[0], "position {} of {}",
                  position, position_scale.shape[0]);
      const float* scale = position_scale.as<float>() + position * num_heads;
      const float* row_tau = tau.as<float>() + t * 2 * num_heads;
      float* q = qkv.as<float>() + t * width;
      float* v = q + 2 * num_heads * head_dim;
      for (std::int64_t h = 0; h < num_heads; ++h) {
        const float q_factor = std::tanh(row_tau[h]) + scale[h];
        const float v_factor = std::tanh(row_tau[num_heads + h]) + scale[h];
        for (std::int64_t d = 0; d < head_dim; ++d) q[h * head_dim + d] *= q_factor;
        for (std::int64_t d = 0; d < head_dim; ++d) v[h * head_dim + d] *= v_factor;
      }
    }
  });
}

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

template <class T>
void store_kv(const KvPages& pages, const HeadLayout& heads, std::int64_t slot, std::int64_t head,
              const float* k, const float* v) {
  const std::int64_t head_dim = heads.head_dim;
  const std::int64_t page = slot / heads.page_size;
  const std::int64_t offset = slot % heads.page_size;
  const std::int64_t base = (page * heads.num_kv_heads + head) * heads.page_size * head_dim;
  store_head(k, head_dim, heads.page_size, pages.k.as<T>() + base + offset);
  store_head(v, head_dim, 1, pages.v.as<T>() + base + offset * head_dim);
}

}  // namespace

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
        if (pages.k.dtype == DType::kBf16) {
          store_kv<std::uint16_t>(pages, heads, slot, h - heads.num_heads, head, v);
        } else {
          store_kv<float>(pages, heads, slot, h - heads.num_heads, head, v);
        }
      }
    }
  });
}

}  // namespace fovea::cpu
