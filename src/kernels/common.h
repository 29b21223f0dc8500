#pragma once

// What several kernels share: reading elements as floats, sums over a block, the GELUs.

#include "dialect.h"

namespace fovea {
namespace kernels {

GPU_FN float to_f32(float x) { return x; }
GPU_FN float to_f32(i8 x) { return static_cast<float>(x); }
/// e4m3fn: 4 exponent bits, 3 mantissa bits, no infinities; the two codes 0x7f and 0xff are NaN.
GPU_FN float to_f32(f8e4m3 x) {
  const u32 bits = x.bits;
  const u32 sign = (bits & 0x80u) << 24;
  const u32 magnitude = bits & 0x7fu;
  if (magnitude == 0x7fu) return as_f32(0x7fc00000u);
  // Subnormal codes count 2^-9 each; the others only need their bits moved.
  if (magnitude < 8) return as_f32(sign | as_u32(static_cast<float>(magnitude) * 0.001953125f));
  return as_f32(sign | ((magnitude << 20) + (120u << 23)));
}
template <>
GPU_FN float from_f32<float>(float x) {
  return x;
}
/// The nearest code, ties to even; 448 for what is larger. Not for NaN.
template <>
GPU_FN f8e4m3 from_f32<f8e4m3>(float x) {
  const u32 sign = (as_u32(x) >> 24) & 0x80u;
  const float magnitude = gpu_min(gpu_abs(x), 448.0f);
  f8e4m3 code;
  if (magnitude < 0.015625f) {  // steps of 2^-9: what the last bit of a sum with 2^14 counts
    code.bits = static_cast<u8>(sign | (as_u32(magnitude + 16384.0f) - as_u32(16384.0f)));
    return code;
  }
  // Half of the 20 bits that go is added, less a little where the code would be odd.
  const u32 bits = as_u32(magnitude);
  code.bits = static_cast<u8>(sign | (((bits + 0x7ffffu + ((bits >> 20) & 1u)) >> 20) - 960u));
  return code;
}
/// x as T keeps it.
template <class T>
GPU_FN float rounded_to(float x) {
  return to_f32(from_f32<T>(x));
}

/// The largest code of pages that hold codes with a scale for each row; 0 of other pages.
GPU_FN float largest_code(const GPU_GLOBAL float*) { return 0; }
GPU_FN float largest_code(const GPU_GLOBAL bf16*) { return 0; }
GPU_FN float largest_code(const GPU_GLOBAL i8*) { return 127; }
GPU_FN float largest_code(const GPU_GLOBAL f8e4m3*) { return 448; }

/// Sum over the block, the same in every thread and in an order that depends on the number of
/// threads alone. scratch: num_warps floats; may be used again right after.
GPU_FN float block_sum(Thread t, float value, GPU_SHARED float* scratch) {
  value = warp_sum(t, value);
  if (t.num_warps == 1) return value;
  if (t.lane == 0) scratch[t.warp] = value;
  block_sync(t);
  float total = 0;
  for (u32 w = 0; w < t.num_warps; ++w) total += scratch[w];
  block_sync(t);
  return total;
}
GPU_FN float block_max(Thread t, float value, GPU_SHARED float* scratch) {
  value = warp_max(t, value);
  if (t.num_warps == 1) return value;
  if (t.lane == 0) scratch[t.warp] = value;
  block_sync(t);
  float largest = scratch[0];
  for (u32 w = 1; w < t.num_warps; ++w) largest = gpu_max(largest, scratch[w]);
  block_sync(t);
  return largest;
}
/// Exact: integers may be added in any order.
GPU_FN u64 block_sum(Thread t, u64 value, GPU_SHARED u64* scratch) {
  value = warp_sum(t, value);
  if (t.num_warps == 1) return value;
  if (t.lane == 0) scratch[t.warp] = value;
  block_sync(t);
  const u64 total = warp_sum(t, t.lane < t.num_warps ? scratch[t.lane] : static_cast<u64>(0));
  block_sync(t);
  return total;
}
GPU_FN u64 block_max(Thread t, u64 value, GPU_SHARED u64* scratch) {
  value = warp_max(t, value);
  if (t.num_warps == 1) return value;
  if (t.lane == 0) scratch[t.warp] = value;
  block_sync(t);
  const u64 largest = warp_max(t, t.lane < t.num_warps ? scratch[t.lane] : static_cast<u64>(0));
  block_sync(t);
  return largest;
}

/// The first lane for which `holds`; kWarpSize when there is none.
GPU_FN u32 first_lane(Thread t, bool holds) {
  const u32 lanes = lanes_where(t, holds);
  return lanes == 0 ? kWarpSize : lowest_bit(lanes);
}

/// A number and its place as one integer: the larger number is the larger integer, among equals the
/// lower place; NaN is less than everything else.
GPU_FN u64 ranked(float x, u32 place) {
  const u32 bits = as_u32(x + 0.0f);  // -0 and 0 are equal
  const u32 key = is_nan(x) ? 0 : (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return (static_cast<u64>(key) << 32) | (0xffffffffu - place);
}
GPU_FN u32 place_of(u64 rank) { return 0xffffffffu - static_cast<u32>(rank); }
/// The number that was ranked (0 for -0); NaN for NaN.
GPU_FN float number_of(u64 rank) {
  const u32 key = static_cast<u32>(rank >> 32);
  return as_f32((key & 0x80000000u) != 0 ? key ^ 0x80000000u : ~key);
}

/// 0.5 x (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3): nothing cancels for
/// negative x.
GPU_FN float gelu_tanh(float x) {
  const float u2 = x * (1.5957691216f + 0.0713548162726f * x * x);
  return x / (1.0f + gpu_exp(-u2));
}

/// 0.5 x (1 + erf(x / sqrt 2)) = max(x, 0) - 0.5 |x| erfc(|x| / sqrt 2). erfc(z) e^(z^2) = s P(s)
/// with s = 1 / (1 + 0.35 z), a minimax fit with an error of 4.5e-9 for z in [0, 10]. Metal has no
/// erf.
GPU_FN float gelu_erf(float x) {
  const float magnitude = gpu_abs(x);
  const float s = 1.0f / (1.0f + 0.35f * (magnitude * 0.70710678118f));
  float p = 0.0366547278975f;
  p = p * s - 0.149543535177f;
  p = p * s + 0.159641214855f;
  p = p * s + 0.0010456134904f;
  p = p * s + 0.0634051102332f;
  p = p * s + 0.158554689811f;
  p = p * s + 0.146915780866f;
  p = p * s + 0.188806398365f;
  p = p * s + 0.197030737784f;
  p = p * s + 0.197489266401f;
  const float tail = 0.5f * magnitude * s * p * gpu_exp(-0.5f * x * x);
  return (x <= 0 ? 0.0f : x) - tail;
}

/// As fovea::Activation: 0 none, 1 GELU with tanh, 2 GELU with erf.
GPU_FN float activated(float x, u32 activation) {
  if (activation == 1) return gelu_tanh(x);
  if (activation == 2) return gelu_erf(x);
  return x;
}

}  // namespace kernels
}  // namespace fovea
