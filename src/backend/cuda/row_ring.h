#pragma once

// More rows of x than a window takes, asked for as streamed weights are. For .cu files.

#include <cuda_bf16.h>

#include "backend/cuda/row_windows.h"
#include "backend/cuda/tensor_core.h"

namespace fovea::cuda {

/// Of a block, kSlots pieces (kSpans times 64 of the depth) of up to kGroups * 8 rows for each
/// warp, to wait beside the pieces of the weights that they will be multiplied by. kIs8: a lane
/// takes 16 neighbours of the depth, as weights in 8 bits lie; else twice 8.
template <int kWarps, int kGroups, int kSpans, int kSlots, bool kIs8>
class RowRing {
 public:
  /// Asks for what begins at `at` of a part, and becomes `slot`; zeros where there is nothing. Part
  /// of the next group of copies. Items: as of WeightStream.
  template <class Items>
  __device__ __forceinline__ void ask(Items& items, int part, int at, int slot) {
    const int depth = items.depth(part), quarter = static_cast<int>(threadIdx.x % 4);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int row = g * 8 + lane_row();
      const bool is_there = row < items.num_rows();
      const __nv_bfloat16* x = items.x_row(part, is_there ? row : 0) + at;
#pragma unroll
      for (int span = 0; span < kSpans; ++span) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          // The four lanes of a row ask for neighbours, whoever of them takes what: copies are slow
          // where the two halves of 32 bytes go apart.
          const int chunk = i * 4 + quarter, from = span * 64 + chunk * 8;
          copy_16(place_of(slot, span, g, chunk), x + from, is_there && at + from < depth);
        }
      }
    }
  }
  /// This lane's elements of a piece whose copies every lane of the warp has waited for, [64 of the
  /// depth][half of them][group of 8 rows].
  __device__ __forceinline__ void take(int slot, uint4 (&b)[kSpans][2][kGroups]) {
    const int quarter = static_cast<int>(threadIdx.x % 4);
    __syncwarp();
#pragma unroll
    for (int span = 0; span < kSpans; ++span) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          const int chunk = kIs8 ? quarter * 2 + half : half * 4 + quarter;
          b[span][half][g] = *place_of(slot, span, g, chunk);
        }
      }
    }
    __syncwarp();  // who asks for this slot again writes to places of other lanes
  }

 private:
  static constexpr int kThreads = kWarps * 32;
  // Where a slot has a chunk (16 bytes, of 8 in 64 of the depth) of this lane's row. In 8 bits
  // lanes take chunks of both halves at once: these lie so that eight lanes meet every bank once.
  __device__ __forceinline__ uint4* place_of(int slot, int span, int group, int chunk) {
    const int load = ((slot * kSpans + span) * 2 + chunk / 4) * kGroups + group;
    const int at = kIs8 ? (chunk % 4) ^ (chunk / 4) : chunk % 4;
    return chunks_ + load * kThreads + (static_cast<int>(threadIdx.x) & ~3) + at;
  }

  uint4 chunks_[kSlots * kSpans * 2 * kGroups * kThreads];  // [slot][span][half][group][row][chunk]
};

}  // namespace fovea::cuda
