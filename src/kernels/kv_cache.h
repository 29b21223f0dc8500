#pragma once

// Rotation, the keys and values of a step into their pages, and copies of pages. A page holds, for
// each KV head, page_size positions of head_dim elements.

#include "common.h"

namespace fovea {
namespace kernels {

struct RopeParams {
  u32 num_heads;
  u32 num_kv_heads;
  u32 head_dim;
  u32 page_size;
  u32 half;  // rotated pairs of a head
  u32 max_positions;
  u32 num_slots;
  u32 pad0_;
};

// How a page keeps the elements of one head of one position. Codes count in steps; a step that is
// subnormal is coarse, and a quotient may pass the largest code.
GPU_FN void store_element(float x, float, GPU_GLOBAL float* to) { *to = x; }
GPU_FN void store_element(float x, float, GPU_GLOBAL bf16* to) { *to = from_f32<bf16>(x); }
GPU_FN void store_element(float x, float step, GPU_GLOBAL i8* to) {
  const float code = step > 0 ? gpu_rint(x / step) : 0.0f;
  *to = static_cast<i8>(gpu_max(-127.0f, gpu_min(127.0f, code)));
}
GPU_FN void store_element(float x, float step, GPU_GLOBAL f8e4m3* to) {
  *to = from_f32<f8e4m3>(step > 0 ? x / step : 0.0f);
}

// Element d of a head after rotation; dimension i pairs with i + half.
template <class T>
GPU_FN float rotated(const GPU_GLOBAL T* head, const GPU_GLOBAL float* table, u32 half, u32 d) {
  if (d >= 2 * half) return to_f32(head[d]);
  const u32 i = d < half ? d : d - half;
  const float a = to_f32(head[i]);
  const float b = to_f32(head[i + half]);
  const float cosine = table[2 * i];
  const float sine = table[2 * i + 1];
  return rounded_to<T>(d < half ? a * cosine - b * sine : a * sine + b * cosine);
}

// The step that codes of one position of a head count in, by one warp: its largest element becomes
// `largest_code`. NaN for a head that is not finite.
template <class T>
GPU_FN float quantisation_step(Thread t, const GPU_GLOBAL T* head, const GPU_GLOBAL float* table,
                               u32 half, u32 head_dim, float largest_code) {
  float largest = 0;
  float strange = 0;
  for (u32 d = t.lane; d < head_dim; d += kWarpSize) {
    const float x = rotated(head, table, half, d);
    largest = gpu_max(largest, gpu_abs(x));
    if (!is_finite(x)) strange = 1;
  }
  largest = warp_max(t, largest);
  strange = warp_max(t, strange);
  return strange > 0 ? as_f32(0x7fc00000u) : largest / largest_code;
}

// Rotates q and k in place and writes k and v into the cache; slot -1 writes nothing. Grid: x =
// rows; y = as many heads as a block has warps, one for each.
template <class T, class Page>
GPU_FN void rope_and_store_kv(Thread t, const GPU_CONST RopeParams& p, const GPU_GLOBAL float* rope,
                              const GPU_GLOBAL i32* positions, const GPU_GLOBAL i32* slots,
                              GPU_GLOBAL T* qkv, GPU_GLOBAL Page* k_pages, GPU_GLOBAL Page* v_pages,
                              GPU_GLOBAL float* k_scales, GPU_GLOBAL float* v_scales,
                              GPU_SHARED char*) {
  const u32 position = static_cast<u32>(positions[t.block.x]);
  if (position >= p.max_positions) return;
  const i32 slot = slots[t.block.x];
  const bool stores = slot >= 0 && static_cast<u32>(slot) < p.num_slots;
  const GPU_GLOBAL float* table = rope + static_cast<u64>(position) * p.half * 2;
  const u32 num_heads = p.num_heads + 2 * p.num_kv_heads;
  GPU_GLOBAL T* row = qkv + static_cast<u64>(t.block.x) * num_heads * p.head_dim;
  const u32 h = t.block.y * t.num_warps + t.warp;
  if (h >= num_heads) return;
  GPU_GLOBAL T* head = row + h * p.head_dim;
  const bool is_value = h >= p.num_heads + p.num_kv_heads;
  const bool is_cached = h >= p.num_heads && stores;
  const u32 half = is_value ? 0 : p.half;
  const u32 kv_head = is_value ? h - p.num_heads - p.num_kv_heads : h - p.num_heads;
  const u64 place =
      is_cached
          ? (static_cast<u64>(static_cast<u32>(slot) / p.page_size) * p.num_kv_heads + kv_head) *
                    p.page_size +
                static_cast<u32>(slot) % p.page_size
          : 0;
  float step = 0;
  if (is_cached && largest_code(k_pages) > 0) {
    step = quantisation_step(t, head, table, half, p.head_dim, largest_code(k_pages));
    if (t.lane == 0) (is_value ? v_scales : k_scales)[place] = step;
  }
  GPU_GLOBAL Page* page = (is_value ? v_pages : k_pages) + place * p.head_dim;
  // A lane owns both elements of its pairs: nobody else reads them.
  for (u32 i = t.lane; i < half; i += kWarpSize) {
    const float a = rotated(head, table, half, i);
    const float b = rotated(head, table, half, i + half);
    head[i] = from_f32<T>(a);
    head[i + half] = from_f32<T>(b);
    if (!is_cached) continue;
    store_element(a, step, page + i);
    store_element(b, step, page + i + half);
  }
  if (!is_cached) return;
  for (u32 d = 2 * half + t.lane; d < p.head_dim; d += kWarpSize) {
    store_element(to_f32(head[d]), step, page + d);
  }
}

struct CopyPagesParams {
  u32 words;  // of a page
  u32 num_pages;
  u32 pad0_, pad1_;
};

// pool[pages[1][i]] = pool[pages[0][i]], in words of 4 bytes. Grid: x = pieces of a page, y = i;
// pages: [2, grid y].
GPU_FN void copy_pages(Thread t, const GPU_CONST CopyPagesParams& p, const GPU_GLOBAL i32* pages,
                       GPU_GLOBAL u32* pool, GPU_SHARED char*) {
  const u32 from = static_cast<u32>(pages[t.block.y]);
  const u32 to = static_cast<u32>(pages[p.num_pages + t.block.y]);
  const u32 i = t.block.x * t.num_warps * kWarpSize + t.index;
  if (i < p.words) {
    pool[static_cast<u64>(to) * p.words + i] = pool[static_cast<u64>(from) * p.words + i];
  }
}

}  // namespace kernels
}  // namespace fovea
