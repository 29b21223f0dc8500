#pragma once

// The dialect on the processor: threads of a block are the fibers of a FiberBlock.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "fiber_block.h"

#define GPU_GLOBAL
#define GPU_CONST
#define GPU_SHARED
#define GPU_FN inline
#define GPU_UNROLL

namespace fovea {
namespace kernels {

using u8 = std::uint8_t;
using i8 = std::int8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using i32 = std::int32_t;
using u64 = std::uint64_t;

struct bf16 {
  u16 bits;
};
struct f8e4m3 {
  u8 bits;
};

struct Index3 {
  u32 x, y, z;
};

struct Thread {
  Index3 block;
  u32 index;
  u32 lane;
  u32 warp;
  u32 num_warps;
  FiberBlock* fibers;
};

inline u32 as_u32(float x) {
  u32 bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float as_f32(u32 bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

/// Four numbers, loaded as one from an address that is a multiple of 16 bytes.
struct Float4 {
  float value[4];
};
inline Float4 load_4(const float* from) {
  Float4 loaded;
  std::memcpy(&loaded, from, sizeof loaded);
  return loaded;
}

inline void store_4(float* to, Float4 x) { std::memcpy(to, &x, sizeof x); }

inline float to_f32(bf16 x) { return as_f32(u32{x.bits} << 16); }
template <class T>
T from_f32(float x);
template <>
inline bf16 from_f32<bf16>(float x) {
  const u32 bits = as_u32(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<u16>((bits >> 16) | 0x40u)};
  return {static_cast<u16>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

inline float gpu_exp2(float x) { return std::exp2(x); }
/// The same, but what is less than the least normal number may be 0.
inline float gpu_exp2_flushed(float x) { return std::exp2(x); }
inline float gpu_exp(float x) { return std::exp(x); }
inline float gpu_log(float x) { return std::log(x); }
/// To some 2^-20; not the same on all devices.
inline float gpu_log2_about(float x) { return std::log2(x); }
inline float gpu_sqrt(float x) { return std::sqrt(x); }
inline float gpu_tanh(float x) { return std::tanh(x); }
inline float gpu_sin(float x) { return std::sin(x); }
inline float gpu_cos(float x) { return std::cos(x); }
inline float gpu_rint(float x) { return std::nearbyint(x); }
/// a * b + c, rounded as this device does it but everywhere the same.
inline float gpu_fma(float a, float b, float c) { return a * b + c; }
inline float gpu_abs(float x) { return std::fabs(x); }
inline float gpu_max(float a, float b) { return std::fmax(a, b); }
inline float gpu_min(float a, float b) { return std::fmin(a, b); }
inline bool is_nan(float x) { return std::isnan(x); }
inline bool is_finite(float x) { return std::isfinite(x); }
/// The place of the lowest bit that is set; x is not 0.
inline u32 lowest_bit(u32 x) { return static_cast<u32>(__builtin_ctz(x)); }
inline u32 count_bits(u32 x) { return static_cast<u32>(__builtin_popcount(x)); }
inline u64 mul_hi(u64 a, u64 b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<u64>((static_cast<Wide>(a) * b) >> 64);
}
inline u32 mul_hi(u32 a, u32 b) { return static_cast<u32>((u64{a} * b) >> 32); }

/// All threads of the block, in uniform control flow. Orders shared memory.
inline void block_sync(const Thread& t) { t.fibers->block_barrier(t.index); }
/// All threads of all blocks of the cluster; orders their shared memory. Here it has one block.
inline void cluster_sync(const Thread& t) { block_sync(t); }
/// Tells the cluster's blocks that this one runs, and waits until all have told. Orders nothing.
inline void cluster_arrive(const Thread&) {}
inline void cluster_wait(const Thread&) {}
/// Stores to where block `peer` of the cluster, which has been waited for before, has what this
/// block has at `place`. It is there behind the next cluster_sync().
template <class T>
void store_to_peer(const Thread&, T* place, T value, u32) {
  *place = value;
}
/// All threads of the warp.
inline void warp_sync(const Thread& t) { t.fibers->warp_barrier(t.index); }

/// `value` of lane `source`.
template <class T>
T shuffle(const Thread& t, T value, u32 source) {
  static_assert(sizeof(T) <= 8, "a lane carries 8 bytes");
  u64 bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = t.fibers->exchange(t.index, bits)[source];
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
template <class T>
T shuffle_xor(const Thread& t, T value, u32 mask) {
  return shuffle(t, value, t.lane ^ mask);
}

namespace host {

// What the butterfly of shuffles gives, from one exchange: every lane sums the same pairs.
template <class T, class Join>
T butterfly(const Thread& t, T value, Join join) {
  u64 bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  const u64* lanes = t.fibers->exchange(t.index, bits);
  T values[32];
  for (int i = 0; i < 32; ++i) std::memcpy(&values[i], &lanes[i], sizeof(T));
  for (int mask = 16; mask > 0; mask /= 2) {
    for (int i = 0; i < mask; ++i) values[i] = join(values[i], values[i + mask]);
  }
  return values[0];
}

}  // namespace host

template <class T>
T warp_sum(const Thread& t, T value) {
  return host::butterfly(t, value, [](T a, T b) { return a + b; });
}
inline float warp_max(const Thread& t, float value) {
  return host::butterfly(t, value, [](float a, float b) { return std::fmax(a, b); });
}
inline u64 warp_max(const Thread& t, u64 value) {
  return host::butterfly(t, value, [](u64 a, u64 b) { return a > b ? a : b; });
}
/// A bit for each lane: whether it `holds` there.
inline u32 lanes_where(const Thread& t, bool holds) {
  const u64* lanes = t.fibers->exchange(t.index, holds ? 1 : 0);
  u32 bits = 0;
  for (u32 lane = 0; lane < 32; ++lane) bits |= static_cast<u32>(lanes[lane]) << lane;
  return bits;
}

/// Adds to a word of shared memory; returns what was there.
inline u32 atomic_add_u32(u32* word, u32 value) {
  return __atomic_fetch_add(word, value, __ATOMIC_RELAXED);
}

}  // namespace kernels
}  // namespace fovea
