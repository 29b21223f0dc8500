#pragma once

// Types of weights, and those in 8 and in 4 bits: where they lie, and how they become bf16, which
// tensor cores take.
// For .cu files.

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "backend/cuda/native_kernels.h"
#include "kernels/int4_tile.h"

namespace fovea::cuda {

/// A weight in 8 bits, e4m3.
struct Float8 {
  std::uint8_t bits;
};

/// Four e4m3 as four bf16: their bits moved to where bf16 has them, and the exponents' biases made
/// equal by a multiplication, which is exact for subnormal codes too. The two codes for NaN come
/// out as 480.
__device__ __forceinline__ void widen_float8(unsigned four, unsigned (&pairs)[2]) {
  constexpr unsigned kTwoTo120 = 0x7b807b80u;  // 2^(127 - 7), twice
  constexpr unsigned kMinus0 = 0x80008000u;
  unsigned wide[2];
  // Each byte becomes 16 bits, the upper eight of which repeat its sign.
  asm("prmt.b32 %0, %1, 0, 0x9180;" : "=r"(wide[0]) : "r"(four));
  asm("prmt.b32 %0, %1, 0, 0xb3a2;" : "=r"(wide[1]) : "r"(four));
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const unsigned moved = (wide[i] << 4) & 0x87f087f0u;
    // What is added changes nothing; before compute capability 9.0 there is no product alone.
    asm("fma.rn.bf16x2 %0, %1, %2, %3;"
        : "=r"(pairs[i])
        : "r"(moved), "r"(kTwoTo120), "r"(kMinus0));
  }
}

using Int4Tile = kernels::int4_tile;

/// Names a type of weights where a value is wanted.
template <class T, WeightType kTypeOf>
struct WeightTag {
  using Type = T;
  static constexpr WeightType kType = kTypeOf;
};
/// launch(tag) with the tag of what a weight is stored as.
template <class Launch>
cudaError_t with_weight_type(WeightType type, const Launch& launch) {
  switch (type) {
    case WeightType::kFloat8:
      return launch(WeightTag<Float8, WeightType::kFloat8>{});
    case WeightType::kInt4:
      return launch(WeightTag<Int4Tile, WeightType::kInt4>{});
    default:
      return launch(WeightTag<__nv_bfloat16, WeightType::kBf16>{});
  }
}

/// Whether a row's sums count the row's scale or step.
template <class W>
inline constexpr bool kHasRowScale = true;
template <>
inline constexpr bool kHasRowScale<__nv_bfloat16> = false;

/// Row n of a weight [rows, k], or the last where there is none, from input `from` on. Of tiles,
/// the first of the tiles that hold these inputs; `from` is a multiple of their depth.
template <class W>
__device__ __forceinline__ const W* weight_row(const void* weight, int n, int rows, int k,
                                               int from = 0) {
  const auto row = static_cast<std::size_t>(min(n, rows - 1));
  if constexpr (std::is_same_v<W, Int4Tile>) {
    return static_cast<const W*>(weight) + row / kernels::kInt4TileRows * kernels::int4_tiles(k) +
           from / kernels::kInt4TileDepth;
  } else {
    return static_cast<const W*>(weight) + row * k + from;
  }
}

/// Eight codes of a tile times their scale, exactly: the one of scales, a pair of bf16, that
/// `index` says. The codes become mantissas of 16 + code (code + 8 is stored), and what is added is
/// -24 * scale.
__device__ __forceinline__ uint4 widened_int4(unsigned codes, unsigned scales, int index) {
  constexpr unsigned kCodes = 0x00780078u, kSixteen = 0x41804180u;  // 16, twice
  constexpr unsigned kMinus24 = 0xc1c0c1c0u, kMinus0 = 0x80008000u;
  const unsigned scale = __byte_perm(scales, 0, index == 0 ? 0x1010u : 0x3232u);
  unsigned offset;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(offset) : "r"(scale), "r"(kMinus24), "r"(kMinus0));
  const unsigned moved[4] = {codes << 3, codes >> 1, codes >> 5, codes >> 9};
  unsigned pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    unsigned code;  // (moved & kCodes) | kSixteen in one instruction, which has to be asked for
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(code) : "r"(moved[i]), "r"(kCodes), "r"(kSixteen));
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(pairs[i]) : "r"(code), "r"(scale), "r"(offset));
  }
  return {pairs[0], pairs[1], pairs[2], pairs[3]};
}

}  // namespace fovea::cuda
