#include <type_traits>

#include "backend/cuda/device_room.h"
#include "backend/cuda/expert_places.h"
#include "backend/cuda/native_kernels.h"
#include "backend/cuda/weight_stream.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

// The index-th of the pieces into which the experts' places fall, at most `size` places of one
// expert each; expert -1 when there are fewer. Every warp finds it by itself.
__device__ __forceinline__ ExpertPlaces find_piece(const std::int32_t* offsets, int num_experts,
                                                   int size, int index) {
  const int lane = threadIdx.x % 32;
  for (int base = 0; base < num_experts; base += 32) {
    const int expert = base + lane;
    const int begin = expert < num_experts ? offsets[expert] : 0;
    const int end = expert < num_experts ? offsets[expert + 1] : 0;
    const int count = (end - begin + size - 1) / size;
    const int before = prefix_sum(count);  // pieces of this expert and those in front of it
    const int total = __shfl_sync(~0u, before, 31);
    if (index < total) {
      const unsigned holds = __ballot_sync(~0u, index < before);
      const int at = __ffs(static_cast<int>(holds)) - 1;
      const int first = __shfl_sync(~0u, before - count, at);
      const int from = __shfl_sync(~0u, begin, at) + (index - first) * size;
      return {base + at, from, min(from + size, __shfl_sync(~0u, end, at))};
    }
    index -= total;
  }
  return {-1, 0, 0};
}

constexpr int kTileRows = 128, kTileCols = 128, kTileDepth = 64;
constexpr int kTileWarps = 8;  // two of 64 places by four of 32 columns
constexpr int kTileThreads = kTileWarps * 32;
constexpr int kStride = kTileDepth + 8;  // keeps the lanes of a load in different banks

// What a slice of a weight takes in shared memory, in elements of W. Narrow weights come as they
// are.
constexpr int kInt4Tiles = kTileCols / static_cast<int>(kernels::kInt4TileRows);
static_assert(kTileDepth == kernels::kInt4TileDepth);
template <class W>
inline constexpr int kSliceElements = kTileCols* kTileDepth;
template <>
inline constexpr int kSliceElements<__nv_bfloat16> = kTileCols* kStride;
template <>
inline constexpr int kSliceElements<Int4Tile> = kInt4Tiles;

// The shared memory of a tile: slices of x and of the weight that are under way. Narrow weights are
// widened to a place of their own when it is their turn.
template <class W, int kStages>
struct TileMemory {
  static constexpr bool kWidens = !std::is_same_v<W, __nv_bfloat16>;

  __nv_bfloat16 x[kStages][kTileRows * kStride];
  alignas(16) W weight[kStages][kSliceElements<W>];
  alignas(16) __nv_bfloat16 widened[kWidens ? kTileCols * kStride : 8];
};

// Every thread widens 16 elements at a time; all wait until all are done.
__device__ __forceinline__ void widen_slice(const Float8* from, __nv_bfloat16* to) {
  constexpr int kElements = 16, kOfRow = kTileDepth / kElements;
  for (int i = threadIdx.x; i < kTileCols * kOfRow; i += kTileThreads) {
    const int row = i / kOfRow, at = i % kOfRow * kElements;
    const uint4 codes = *reinterpret_cast<const uint4*>(from + row * kTileDepth + at);
    const unsigned words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      unsigned low[2], high[2];
      widen_float8(words[2 * half], low);
      widen_float8(words[2 * half + 1], high);
      *reinterpret_cast<uint4*>(to + row * kStride + at + half * 8) = {low[0], low[1], high[0],
                                                                       high[1]};
    }
  }
  __syncthreads();
}

// Of tiles, a quarter of a row.
__device__ __forceinline__ void widen_slice(const Int4Tile* from, __nv_bfloat16* to) {
  for (int i = threadIdx.x; i < kTileCols * 4; i += kTileThreads) {
    const int row = i / 4, quarter = i % 4, in_tile = row % 8;
    const Int4Tile& tile = from[row / 8];
    const uint2 codes = *reinterpret_cast<const uint2*>(tile.codes + (in_tile * 4 + quarter) * 2);
    const unsigned all = *reinterpret_cast<const unsigned*>(tile.scales + in_tile * 4);
    unsigned scales[2];  // of both halves, twice
    widen_float8(__byte_perm(all, all, quarter < 2 ? 0x2020u : 0x3131u), scales);
    __nv_bfloat16* at = to + row * kStride + quarter * 8;
    *reinterpret_cast<uint4*>(at) = widened_int4(codes.x, scales[0], 0);
    *reinterpret_cast<uint4*>(at + 32) = widened_int4(codes.y, scales[0], 1);
  }
  __syncthreads();
}

// What a thread copies of every slice of 128 rows: 16 bytes of several rows. row(r): where row r of
// the tile begins, or null for zeros.
template <class T, int kRowStride>
class SliceCopies {
 public:
  template <class RowOf>
  __device__ SliceCopies(RowOf row, int depth, const void* anything)
      : depth_(depth), anything_(anything) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) rows_[i] = row(first_row() + i * kRowsApart);
  }
  __device__ __forceinline__ void ask(int begin, T* to) const {
    const int at = static_cast<int>(threadIdx.x) % kChunks * kElements;
    const bool in_depth = begin + at < depth_;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const bool inside = in_depth && rows_[i] != nullptr;
      copy_16(to + (first_row() + i * kRowsApart) * kRowStride + at,
              inside ? rows_[i] + begin + at : anything_, inside);
    }
  }

 private:
  static constexpr int kElements = 16 / sizeof(T);
  static constexpr int kChunks = kTileDepth / kElements;
  static constexpr int kRowsApart = kTileThreads / kChunks;
  static constexpr int kCopies = kTileRows / kRowsApart;
  __device__ static int first_row() { return static_cast<int>(threadIdx.x) / kChunks; }

  const T* rows_[kCopies];
  int depth_;
  const void* anything_;
};
static_assert(kTileRows == kTileCols);

// The same of tiles: row(r) is the tile at which the rows r to r + 7 begin.
class Int4Copies {
 public:
  template <class RowOf>
  __device__ Int4Copies(RowOf row, int, const void* anything) : anything_(anything) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int tile = chunk(i) / kChunks;
      tiles_[i] = tile < kInt4Tiles ? row(tile * 8) : nullptr;
    }
  }
  __device__ __forceinline__ void ask(int begin, Int4Tile* to) const {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      if (chunk(i) >= kInt4Tiles * kChunks) continue;
      const auto* from = reinterpret_cast<const uint4*>(tiles_[i] + begin / kTileDepth);
      const bool inside = tiles_[i] != nullptr;
      copy_16(reinterpret_cast<uint4*>(to) + chunk(i),
              inside ? from + chunk(i) % kChunks : anything_, inside);
    }
  }

 private:
  static constexpr int kChunks = sizeof(Int4Tile) / 16;  // of a tile
  static_assert(sizeof(Int4Tile) % 16 == 0);
  static constexpr int kCopies = (kInt4Tiles * kChunks + kTileThreads - 1) / kTileThreads;
  __device__ static int chunk(int i) { return static_cast<int>(threadIdx.x) + i * kTileThreads; }

  const Int4Tile* tiles_[kCopies];
  const void* anything_;
};

template <class W>
using WeightCopies =
    std::conditional_t<std::is_same_v<W, Int4Tile>, Int4Copies,
                       SliceCopies<W, std::is_same_v<W, __nv_bfloat16> ? kStride : kTileDepth>>;

// Grid: x = tiles of columns, y = tiles of places. Of the first product, the columns of a tile are
// 64 of h and the 64 of g that belong to them, eight and eight in turn: a lane holds both.
template <class W, bool kUp, int kStages>
__global__ void __launch_bounds__(kTileThreads, 2) tile_experts(ExpertProduct p) {
  using Memory = TileMemory<W, kStages>;
  extern __shared__ __align__(16) char scratch[];
  auto& memory = *reinterpret_cast<Memory*>(scratch);
  kernels::wait_for_earlier_kernels();
  kernels::let_later_kernels_start();
  const ExpertPlaces piece = find_piece(p.offsets, p.num_experts, kTileRows, blockIdx.y);
  if (piece.expert < 0) return;
  constexpr int kOutputs = kUp ? kTileCols / 2 : kTileCols;
  const int n0 = blockIdx.x * kOutputs, num_columns = kUp ? p.n / 2 : p.n;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int warp_row = warp % 2 * 64, warp_col = warp / 2 * 32;
  const std::size_t k = static_cast<std::size_t>(p.k);
  const auto* x_rows = static_cast<const __nv_bfloat16*>(p.x);
  const void* weight = p.weights[piece.expert];
  const SliceCopies<__nv_bfloat16, kStride> x_copies(
      [&](int r) -> const __nv_bfloat16* {
        const int place = piece.begin + r;
        if (place >= piece.end) return nullptr;
        return x_rows + (kUp ? p.row_of_place[place] : place) * k;
      },
      p.k, p.x);
  const WeightCopies<W> weight_copies(
      [&](int r) -> const W* {
        const int n = n0 + (kUp ? r / 16 * 8 + r % 8 : r);
        if (n >= num_columns) return nullptr;
        return weight_row<W>(weight, n + (kUp && r % 16 >= 8 ? num_columns : 0), p.n, p.k);
      },
      p.k, weight);
  const auto load = [&](int begin, int stage) {
    if (begin < p.k) {
      x_copies.ask(begin, memory.x[stage]);
      weight_copies.ask(begin, memory.weight[stage]);
    }
    commit_copies();
  };

  float sums[4][4][4] = {};  // of 16 places by 8 columns each
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) load(s * kTileDepth, s);
  int stage = 0;
  for (int begin = 0; begin < p.k; begin += kTileDepth) {
    wait_for_copies<kStages - 2>();
    __syncthreads();  // the slice is there for everybody, and nobody reads the one before it any
                      // more
    load(begin + (kStages - 1) * kTileDepth, (stage + kStages - 1) % kStages);
    const __nv_bfloat16* w;
    if constexpr (Memory::kWidens) {
      widen_slice(memory.weight[stage], memory.widened);
      w = memory.widened;
    } else {
      w = memory.weight[stage];
    }
    const __nv_bfloat16* x_at = memory.x[stage] + (warp_row + lane % 16) * kStride + lane / 16 * 8;
    const __nv_bfloat16* w_at =
        w + (warp_col + lane / 16 * 8 + lane % 8) * kStride + lane / 8 % 2 * 8;
#pragma unroll
    for (int c = 0; c < kTileDepth; c += 16) {
      unsigned a[4][4], b[2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) load_matrices(a[i], x_at + i * 16 * kStride + c);
#pragma unroll
      for (int j = 0; j < 2; ++j) load_matrices(b[j], w_at + j * 16 * kStride + c);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          multiply_16x8(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
      }
    }
    stage = stage + 1 == kStages ? 0 : stage + 1;
  }

  const float* scale = p.scales[piece.expert];
  const auto scaled = [&](float value, int n) {
    return scale == nullptr ? value : value * scale[n];
  };
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int place = piece.begin + warp_row + i * 16 + half * 8 + lane / 4;
      if (place >= piece.end) continue;
#pragma unroll
      for (int j = 0; j < 4; j += kUp ? 2 : 1) {
        const int column = lane % 4 * 2;
        const int n = n0 + (kUp ? (warp_col + j * 8) / 2 : warp_col + j * 8) + column;
        if (n >= num_columns) continue;
        const std::size_t at = static_cast<std::size_t>(place) * num_columns + n;
        if constexpr (kUp) {
          float made[2];
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const float h = scaled(sums[i][j][half * 2 + e], n + e);
            const float g = scaled(sums[i][j + 1][half * 2 + e], num_columns + n + e);
            made[e] =
                gated(with_added(p, h, place, n + e), with_added(p, g, place, num_columns + n + e));
          }
          *reinterpret_cast<unsigned*>(static_cast<__nv_bfloat16*>(p.y) + at) =
              pair_of(made[0], made[1]);
        } else {
          *reinterpret_cast<float2*>(static_cast<float*>(p.y) + at) = {
              scaled(sums[i][j][half * 2], n), scaled(sums[i][j][half * 2 + 1], n + 1)};
        }
      }
    }
  }
}

template <class W, int kStages>
cudaError_t tile(const ExpertProduct& p, bool up, KernelStream on) {
  const int outputs = up ? p.n / 2 : p.n, of_tile = up ? kTileCols / 2 : kTileCols;
  const int pieces = min(p.num_pairs, p.num_experts + p.num_pairs / kTileRows);
  const dim3 grid(static_cast<unsigned>((outputs + of_tile - 1) / of_tile),
                  static_cast<unsigned>(pieces));
  return launch_behind(up ? tile_experts<W, true, kStages> : tile_experts<W, false, kStages>, grid,
                       kTileThreads, on, p, static_cast<int>(sizeof(TileMemory<W, kStages>)));
}

// Three slices under way where the multiprocessor has room for them.
template <class W>
cudaError_t tile(const ExpertProduct& p, bool up, KernelStream on) {
  return device_room().shared_bytes >= static_cast<int>(sizeof(TileMemory<W, 3>))
             ? tile<W, 3>(p, up, on)
             : tile<W, 2>(p, up, on);
}

}  // namespace

cudaError_t tiled_experts(const ExpertProduct& p, bool up, KernelStream on) {
  return with_weight_type(p.weight_type,
                          [&](auto tag) { return tile<typename decltype(tag)::Type>(p, up, on); });
}

}  // namespace fovea::cuda
