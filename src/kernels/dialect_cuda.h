#pragma once

// The dialect in CUDA.

#include <cuda_bf16.h>

#define GPU_GLOBAL
#define GPU_CONST
#define GPU_SHARED
#define GPU_FN __device__ __forceinline__
#define GPU_UNROLL _Pragma("unroll")

namespace fovea {
namespace kernels {

using u8 = unsigned char;
using i8 = signed char;
using u16 = unsigned short;
using u32 = unsigned int;
using i32 = int;
using u64 = unsigned long long;

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
};

GPU_FN u32 as_u32(float x) { return __float_as_uint(x); }
GPU_FN float as_f32(u32 bits) { return __uint_as_float(bits); }

struct alignas(16) Float4 {
  float value[4];
};
GPU_FN Float4 load_4(const float* from) {
  const float4 loaded = *reinterpret_cast<const float4*>(from);
  return {{loaded.x, loaded.y, loaded.z, loaded.w}};
}

GPU_FN void store_4(float* to, Float4 x) {
  *reinterpret_cast<float4*>(to) = make_float4(x.value[0], x.value[1], x.value[2], x.value[3]);
}

GPU_FN float to_f32(bf16 x) { return as_f32(static_cast<u32>(x.bits) << 16); }
template <class T>
GPU_FN T from_f32(float x);
template <>
GPU_FN bf16 from_f32<bf16>(float x) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}

// The accurate functions of the library: this code is not compiled with --use_fast_math.
GPU_FN float gpu_exp2(float x) { return exp2f(x); }
GPU_FN float gpu_exp2_flushed(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
GPU_FN float gpu_exp(float x) { return expf(x); }
GPU_FN float gpu_log(float x) { return logf(x); }
GPU_FN float gpu_log2_about(float x) { return __log2f(x); }
GPU_FN float gpu_sqrt(float x) { return sqrtf(x); }
GPU_FN float gpu_tanh(float x) { return tanhf(x); }
GPU_FN float gpu_sin(float x) { return sinf(x); }
GPU_FN float gpu_cos(float x) { return cosf(x); }
GPU_FN float gpu_rint(float x) { return rintf(x); }
// Named, so that the compiler does not choose anew in every kernel which product it fuses.
GPU_FN float gpu_fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
GPU_FN float gpu_abs(float x) { return fabsf(x); }
GPU_FN float gpu_max(float a, float b) { return fmaxf(a, b); }
GPU_FN float gpu_min(float a, float b) { return fminf(a, b); }
GPU_FN bool is_nan(float x) { return x != x; }
GPU_FN bool is_finite(float x) { return (as_u32(x) & 0x7f800000u) != 0x7f800000u; }
GPU_FN u64 mul_hi(u64 a, u64 b) { return __umul64hi(a, b); }
GPU_FN u32 lowest_bit(u32 x) { return static_cast<u32>(__ffs(static_cast<int>(x))) - 1; }
GPU_FN u32 count_bits(u32 x) { return static_cast<u32>(__popc(static_cast<int>(x))); }
GPU_FN u32 mul_hi(u32 a, u32 b) { return __umulhi(a, b); }

GPU_FN void block_sync(const Thread&) { __syncthreads(); }
GPU_FN void warp_sync(const Thread&) { __syncwarp(); }

GPU_FN void cluster_sync(const Thread& t) {
  __syncthreads();
#if __CUDA_ARCH__ >= 900
  // A release waits for all that the block has stored, so one warp's is enough.
  if (t.warp == 0) {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  } else {
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
  }
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
GPU_FN void cluster_arrive(const Thread&) {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
}
GPU_FN void cluster_wait(const Thread&) {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
#if __CUDA_ARCH__ >= 900
GPU_FN u32 peer_address(const void* own, u32 peer) {
  u32 address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;"
      : "=r"(address)
      : "r"(static_cast<u32>(__cvta_generic_to_shared(own))), "r"(peer));
  return address;
}
GPU_FN void store_to_peer(const Thread&, u32* place, u32 value, u32 peer) {
  asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(peer_address(place, peer)), "r"(value)
               : "memory");
}
GPU_FN void store_to_peer(const Thread&, u64* place, u64 value, u32 peer) {
  asm volatile("st.shared::cluster.u64 [%0], %1;" ::"r"(peer_address(place, peer)), "l"(value)
               : "memory");
}
#else
template <class T>
GPU_FN void store_to_peer(const Thread&, T* place, T value, u32) {
  *place = value;
}
#endif

template <class T>
GPU_FN T shuffle(const Thread&, T value, u32 source) {
  return __shfl_sync(0xffffffffu, value, static_cast<int>(source));
}
template <class T>
GPU_FN T shuffle_xor(const Thread&, T value, u32 mask) {
  return __shfl_xor_sync(0xffffffffu, value, static_cast<int>(mask));
}
template <class T>
GPU_FN T warp_sum(const Thread& t, T value) {
  GPU_UNROLL
  for (u32 mask = 16; mask > 0; mask /= 2) value += shuffle_xor(t, value, mask);
  return value;
}
// Of integers one instruction does it.
GPU_FN u32 warp_sum(const Thread&, u32 value) { return __reduce_add_sync(0xffffffffu, value); }
GPU_FN u64 warp_sum(const Thread& t, u64 value) {
  const u64 low = warp_sum(t, static_cast<u32>(value) & 0x3fffffu);
  const u64 middle = warp_sum(t, static_cast<u32>(value >> 22) & 0x1fffffu);
  const u64 high = warp_sum(t, static_cast<u32>(value >> 43));
  return low + (middle << 22) + (high << 43);
}
GPU_FN float warp_max(const Thread&, float value) {
  // As integers in the same order; NaN is no maximum.
  const u32 bits = as_u32(fmaxf(value, as_f32(0xff800000u)));
  const u32 key = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  const u32 largest = __reduce_max_sync(0xffffffffu, key);
  return as_f32((largest & 0x80000000u) != 0 ? largest ^ 0x80000000u : ~largest);
}
GPU_FN u64 warp_max(const Thread&, u64 value) {
  const u32 upper = static_cast<u32>(value >> 32);
  const u32 high = __reduce_max_sync(0xffffffffu, upper);
  const u32 low = upper == high ? static_cast<u32>(value) : 0;
  return (static_cast<u64>(high) << 32) | __reduce_max_sync(0xffffffffu, low);
}
GPU_FN u32 lanes_where(const Thread&, bool holds) { return __ballot_sync(0xffffffffu, holds); }

GPU_FN u32 atomic_add_u32(u32* word, u32 value) { return atomicAdd(word, value); }

}  // namespace kernels
}  // namespace fovea
