#include <cuda_fp8.h>

#include "backend/cuda/native_kernels.h"
#include "backend/cuda/weight_stream.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kElements = 8;  // of a load
constexpr float kLargestFloat8 = 448;

// One block for each row, which stays in registers.
template <int kLoads>
__global__ void __launch_bounds__(kThreads) quantise(QuantisedRows p) {
  __shared__ float largest_of_warp[kThreads / 32];
  kernels::wait_for_earlier_kernels();
  kernels::let_later_kernels_start();
  const std::size_t at = static_cast<std::size_t>(blockIdx.x) * p.width;
  const auto* in = static_cast<const __nv_bfloat16*>(p.x) + at;
  auto* out = static_cast<std::uint8_t*>(p.y) + at;
  float values[kLoads][kElements];
  float largest = 0;
#pragma unroll
  for (int j = 0; j < kLoads; ++j) {
    const int i = static_cast<int>(threadIdx.x + j * kThreads) * kElements;
    if (i >= p.width) continue;
    widen_8(*reinterpret_cast<const uint4*>(in + i), values[j]);
#pragma unroll
    for (int e = 0; e < kElements; ++e) largest = fmaxf(largest, fabsf(values[j][e]));
  }
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, mask));
  }
  if (threadIdx.x % 32 == 0) largest_of_warp[threadIdx.x / 32] = largest;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < kThreads / 32; ++w) largest = fmaxf(largest, largest_of_warp[w]);
  // A row of zeros stays one; what is too small to divide by is as good as zero.
  const float factor = largest > 1e-30f ? kLargestFloat8 / largest : 0;
  if (threadIdx.x == 0) p.scale[blockIdx.x] = largest / kLargestFloat8;
#pragma unroll
  for (int j = 0; j < kLoads; ++j) {
    const int i = static_cast<int>(threadIdx.x + j * kThreads) * kElements;
    if (i >= p.width) continue;
    unsigned words[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float* four = values[j] + half * 4;
      const unsigned low =
          __nv_cvt_float2_to_fp8x2({four[0] * factor, four[1] * factor}, __NV_SATFINITE, __NV_E4M3);
      const unsigned high =
          __nv_cvt_float2_to_fp8x2({four[2] * factor, four[3] * factor}, __NV_SATFINITE, __NV_E4M3);
      words[half] = low | high << 16;
    }
    *reinterpret_cast<uint2*>(out + i) = {words[0], words[1]};
  }
}

// Grid: x = 1024 elements of a row, y = row.
__global__ void __launch_bounds__(kThreads)
    widen(const std::uint8_t* x, const float* scale, __nv_bfloat16* y, int width) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x) * kElements;
  if (i >= width) return;
  const std::size_t at = static_cast<std::size_t>(blockIdx.y) * width + i;
  const float factor = scale == nullptr ? 1.0f : scale[blockIdx.y];
  const uint2 codes = *reinterpret_cast<const uint2*>(x + at);
  unsigned out[4];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    unsigned pairs[2];
    widen_float8(half == 0 ? codes.x : codes.y, pairs);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      out[half * 2 + i] = pair_of(__uint_as_float(pairs[i] << 16) * factor,
                                  __uint_as_float(pairs[i] & 0xffff0000u) * factor);
    }
  }
  *reinterpret_cast<uint4*>(y + at) = {out[0], out[1], out[2], out[3]};
}

// A warp has a tile. Grid: x = kThreads / 32 tiles of a row of tiles, y = row of tiles.
__global__ void __launch_bounds__(kThreads)
    widen_tiles(const Int4Tile* x, const float* step, __nv_bfloat16* y, int rows, int width) {
  const int lane = static_cast<int>(threadIdx.x) % 32, tiles = kernels::int4_tiles(width);
  const int depth_tile = static_cast<int>(blockIdx.x * (kThreads / 32) + threadIdx.x / 32);
  const int row = static_cast<int>(blockIdx.y * kernels::kInt4TileRows) + lane / 4;
  if (depth_tile >= tiles || row >= rows) return;
  const Int4Tile& tile = x[static_cast<std::size_t>(blockIdx.y) * tiles + depth_tile];
  const uint2 codes = *reinterpret_cast<const uint2*>(tile.codes + lane * 2);
  const unsigned all = *reinterpret_cast<const unsigned*>(tile.scales + lane / 4 * 4);
  unsigned scales[2];  // of both halves, twice
  widen_float8(__byte_perm(all, all, lane % 4 < 2 ? 0x2020u : 0x3131u), scales);
  const unsigned factor = pair_of(step[row], step[row]);  // a power of two
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int at =
        depth_tile * static_cast<int>(kernels::kInt4TileDepth) + half * 32 + lane % 4 * 8;
    if (at >= width) continue;
    uint4 values = widened_int4(half == 0 ? codes.x : codes.y, scales[0], half);
    for (unsigned* pair : {&values.x, &values.y, &values.z, &values.w}) {
      asm("fma.rn.bf16x2 %0, %1, %2, %3;"
          : "=r"(*pair)
          : "r"(*pair), "r"(factor), "r"(0x80008000u));
    }
    *reinterpret_cast<uint4*>(y + static_cast<std::size_t>(row) * width + at) = values;
  }
}

}  // namespace

cudaError_t quantise_rows(const QuantisedRows& args, KernelStream stream) {
  const dim3 grid(static_cast<unsigned>(args.rows));
  if (args.width <= kThreads * kElements) {
    return launch_behind(quantise<1>, grid, kThreads, stream, args);
  }
  if (args.width <= 2 * kThreads * kElements) {
    return launch_behind(quantise<2>, grid, kThreads, stream, args);
  }
  if (args.width <= 5 * kThreads * kElements) {
    return launch_behind(quantise<5>, grid, kThreads, stream, args);
  }
  return launch_behind(quantise<kMostQuantisedWidth / (kThreads * kElements)>, grid, kThreads,
                       stream, args);
}

cudaError_t widen_rows(const void* x, const float* scale, void* y, int rows, int width,
                       KernelStream stream) {
  constexpr int kOfBlock = kThreads * kElements;
  const dim3 grid(static_cast<unsigned>((width + kOfBlock - 1) / kOfBlock),
                  static_cast<unsigned>(rows));
  widen<<<grid, kThreads, 0, stream.handle>>>(static_cast<const std::uint8_t*>(x), scale,
                                              static_cast<__nv_bfloat16*>(y), width);
  return cudaGetLastError();
}

cudaError_t widen_int4(const void* x, const float* step, void* y, int rows, int width,
                       KernelStream stream) {
  constexpr int kTilesOfBlock = kThreads / 32, kTileRows = kernels::kInt4TileRows;
  const int tiles = (width + 63) / 64;
  const dim3 grid(static_cast<unsigned>((tiles + kTilesOfBlock - 1) / kTilesOfBlock),
                  static_cast<unsigned>((rows + kTileRows - 1) / kTileRows));
  widen_tiles<<<grid, kThreads, 0, stream.handle>>>(static_cast<const Int4Tile*>(x), step,
                                                    static_cast<__nv_bfloat16*>(y), rows, width);
  return cudaGetLastError();
}

}  // namespace fovea::cuda
