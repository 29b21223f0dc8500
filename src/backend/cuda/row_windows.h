#pragma once

// The few rows of x that a warp multiplies streamed weights by, in its own shared memory. For .cu
// files.

#include <cuda_bf16.h>

namespace fovea::cuda {

/// The row that this lane holds of eight, on both sides of a product.
__device__ __forceinline__ int lane_row() { return static_cast<int>(threadIdx.x) % 32 / 4; }

/// Of a block, a window for each warp: the pieces (kPieceDepth, a multiple of 64, of the depth)
/// that it multiplies next, of all rows of x. kWindow rows of pieces: of one row kWindow pieces, of
/// 16 rows one with kWindow = 16. Warps take the pieces of a part in turns, and each fills and
/// reads its own window. kIs8: a lane takes 16 neighbours of the depth, as weights in 8 bits lie;
/// else twice 8.
template <int kWarps, int kGroups, int kPieceDepth, int kWindow, bool kIs8>
class RowWindows {
 public:
  static constexpr int kSpans = kPieceDepth / 64;
  static constexpr int kChunks = kPieceDepth / 8;  ///< of 16 bytes, that a row has in a piece
  static constexpr int kLoads = kWindow * kChunks / 32;
  static_assert(kWindow == 0 || (kWindow >= kGroups * 8 && kWindow % 4 == 0));
  /// What a lane has fetched for the next window.
  using Coming = uint4[kLoads == 0 ? 1 : kLoads];

  /// How many pieces of so many rows (1 to kGroups * 8) a window has.
  __device__ static int pieces(int num_rows) { return kWindow >> row_bits(num_rows); }

  /// Asks for the window that begins with this warp's piece `from_piece` of a part; zeros where
  /// there is nothing. Items: as of WeightStream.
  template <class Items>
  __device__ static __forceinline__ void fetch(Items& items, int part, int from_piece,
                                               Coming& coming) {
    if (from_piece == 0) items.before_x(part);
    const int rows = items.num_rows(), bits = row_bits(rows), depth = items.depth(part);
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int chunk = i * 32 + static_cast<int>(threadIdx.x % 32);
      const int entry = chunk / kChunks, row = entry & ((1 << bits) - 1);
      const int from = (from_piece + (entry >> bits)) * kStride + first() + chunk % kChunks * 8;
      coming[i] = {0, 0, 0, 0};
      if (from >= depth || row >= rows) continue;
      const auto* words = reinterpret_cast<const uint4*>(items.x_row(part, row) + from);
      // What an earlier kernel wrote is in the second cache; the first may hold what was there.
      if constexpr (Items::kReadsEarly) {
        coming[i] = __ldcg(words);
      } else {
        coming[i] = *words;
      }
    }
  }
  /// What was fetched becomes the warp's window.
  __device__ __forceinline__ void put(const Coming& coming) {
    uint4* own = chunks_[threadIdx.x / 32];
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int chunk = i * 32 + static_cast<int>(threadIdx.x % 32), c = chunk % 8;
      own[place_of(chunk / kChunks, chunk % kChunks / 8, kIs8 ? c / 2 : c % 4,
                   kIs8 ? c % 2 : c / 4)] = coming[i];
    }
    __syncwarp();
  }
  /// This lane's elements of a piece, [64 of the depth][half of them][group of 8 rows]. In place of
  /// rows that do not exist it is the first row: nobody reads their sums.
  __device__ __forceinline__ void take(int piece, int num_rows,
                                       uint4 (&b)[kSpans][2][kGroups]) const {
    const uint4* own = chunks_[threadIdx.x / 32];
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int row = g * 8 + lane_row();
      const int entry = (piece << row_bits(num_rows)) + (row < num_rows ? row : 0);
#pragma unroll
      for (int span = 0; span < kSpans; ++span) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          b[span][half][g] = own[place_of(entry, span, static_cast<int>(threadIdx.x % 4), half)];
        }
      }
    }
  }

 private:
  static constexpr int kStride = kWarps * kPieceDepth;  // from one piece of a warp to its next
  __device__ static int first() { return static_cast<int>(threadIdx.x / 32) * kPieceDepth; }
  // So many bits index a row.
  __device__ static int row_bits(int num_rows) { return 32 - __clz(num_rows - 1); }
  // Where a window has what a lane takes of an entry (a row's part of a piece): eight lanes, which
  // read at once, have two neighbouring entries and meet every bank once.
  __device__ static int place_of(int entry, int span, int quarter, int half) {
    return entry * kChunks + span * 8 + quarter * 2 + (half ^ (entry & 1));
  }

  uint4 chunks_[kWarps][kWindow == 0 ? 1 : kWindow * kChunks];  // [piece][row, up to 2^n][chunk]
};

}  // namespace fovea::cuda
