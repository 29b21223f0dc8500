#include "backend/cuda/native_kernels.h"
#include "backend/cuda/tensor_core.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kElements = 8;  // of a load

__device__ __forceinline__ uint4 narrow_8(const float (&values)[kElements]) {
  return {pair_of(values[0], values[1]), pair_of(values[2], values[3]),
          pair_of(values[4], values[5]), pair_of(values[6], values[7])};
}

// Elements `at` and `at + half` of a head, eight of each, turned by the angles of the first.
__device__ __forceinline__ void rotate(uint4& a, uint4& b, const float* table, int at) {
  float x[kElements], y[kElements], u[kElements], w[kElements];
  widen_8(a, x);
  widen_8(b, y);
#pragma unroll
  for (int i = 0; i < kElements; ++i) {
    const float2 angle = *reinterpret_cast<const float2*>(table + 2 * (at + i));  // cos, sin
    u[i] = x[i] * angle.x - y[i] * angle.y;
    w[i] = x[i] * angle.y + y[i] * angle.x;
  }
  a = narrow_8(u);
  b = narrow_8(w);
}

// A block for each row; a thread for eight elements, and for those that they are paired with.
__global__ void __launch_bounds__(kThreads) rotate_rows(RotatedRows p) {
  kernels::wait_for_earlier_kernels();
  kernels::let_later_kernels_start();
  const int position = p.positions[blockIdx.x], slot = p.slots[blockIdx.x];
  if (position < 0 || position >= p.max_positions) return;
  const bool is_stored = slot >= 0 && slot < p.num_slots;
  const int loads = p.head_dim / kElements, half = p.rotary_pairs / kElements;
  const int heads = p.num_heads + 2 * p.num_kv_heads, first_value = p.num_heads + p.num_kv_heads;
  auto* row = static_cast<uint4*>(p.qkv) + static_cast<std::size_t>(blockIdx.x) * (heads * loads);
  const float* table = p.rope + static_cast<std::size_t>(position) * 2 * p.rotary_pairs;
  for (int i = static_cast<int>(threadIdx.x); i < heads * loads; i += kThreads) {
    const int head = i / loads, part = i % loads;
    const bool is_query = head < p.num_heads, is_value = head >= first_value;
    const bool is_pair = !is_value && part < half;
    if (!is_value && part >= half && part < 2 * half) continue;  // somebody's second
    if (!is_pair && (is_query || !is_stored)) continue;
    uint4 a = row[i], b{};
    if (is_pair) {
      b = row[i + half];
      rotate(a, b, table, part * kElements);
    }
    if (is_query) {
      row[i] = a;
      row[i + half] = b;
      continue;
    }
    if (!is_stored) continue;
    const int kv_head = head - (is_value ? first_value : p.num_heads);
    const std::size_t place =
        (static_cast<std::size_t>(slot / p.page_size) * p.num_kv_heads + kv_head) * p.page_size +
        slot % p.page_size;
    auto* page = static_cast<uint4*>(is_value ? p.v_pages : p.k_pages) + place * loads + part;
    page[0] = a;
    if (is_pair) page[half] = b;
  }
}

}  // namespace

cudaError_t rotate_rows(const RotatedRows& args, KernelStream stream) {
  return launch_behind(rotate_rows, dim3(static_cast<unsigned>(args.rows)), kThreads, stream, args);
}

}  // namespace fovea::cuda
