#pragma once

// How kernels read and write the elements of pages of keys and values. For .cu files.

#include <cuda_fp8.h>

#include "backend/cuda/tensor_core.h"
#include "kernels/common.h"

namespace fovea::cuda {

/// Pages of bf16. 16 bytes are kOfLoad elements; a lane has kTogether such loads of keys, and of
/// values, under way.
struct Bf16Pages {
  using Element = kernels::bf16;
  static constexpr bool kIsCoded = false;
  static constexpr int kOfLoad = 8, kTogether = 4;

  static __device__ __forceinline__ void widen(uint4 words, float (&out)[kOfLoad]) {
    widen_8(words, out);
  }
};

/// Pages of i8 codes, which count in steps.
struct I8Pages {
  using Element = kernels::i8;
  static constexpr bool kIsCoded = true;
  static constexpr int kOfLoad = 16, kTogether = 2;

  static __device__ __forceinline__ void widen(uint4 words, float (&out)[kOfLoad]) {
    const unsigned fours[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const unsigned shifted = fours[i] ^ 0x80808080u;  // 128 more, without a sign
#pragma unroll
      for (int byte = 0; byte < 4; ++byte) {
        // The last bits of 2^23 count 1.
        const unsigned bits = __byte_perm(shifted, 0x4b000000u, 0x7650u + byte);
        out[4 * i + byte] = __uint_as_float(bits) - 8388736.0f;
      }
    }
  }
};

/// Pages of e4m3 codes, which count in steps.
struct F8Pages {
  using Element = kernels::f8e4m3;
  static constexpr bool kIsCoded = true;
  static constexpr int kOfLoad = 16, kTogether = 2;

  static __device__ __forceinline__ void widen(uint4 words, float (&out)[kOfLoad]) {
    const unsigned fours[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const auto two = static_cast<__nv_fp8x2_storage_t>(fours[i / 2] >> (i % 2 * 16));
      const float2 pair = __half22float2(__nv_cvt_fp8x2_to_halfraw2(two, __NV_E4M3));
      out[2 * i] = pair.x;
      out[2 * i + 1] = pair.y;
    }
  }
};

}  // namespace fovea::cuda
