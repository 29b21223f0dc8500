#pragma once

// Products of a few rows, bound by how fast weights come from memory. For .cu files.

#include <cstdint>
#include <type_traits>

#include "backend/cuda/narrow_weights.h"
#include "backend/cuda/row_windows.h"
#include "backend/cuda/tensor_core.h"

namespace fovea::cuda {

/// What the stream has of each type of weights: the bytes that a lane holds of 64 of the depth, and
/// places for sums. With two, the next item begins while one of them ends; narrow weights need less
/// under way and can spare the memory.
template <class W>
struct StreamedType;
template <>
struct StreamedType<__nv_bfloat16> {
  static constexpr int kLaneBytes = 64, kSums = 1;
};
template <>
struct StreamedType<Float8> {
  static constexpr int kLaneBytes = 32, kSums = 1;
};
template <>
struct StreamedType<Int4Tile> {
  static constexpr int kLaneBytes = 24, kSums = 2;  // codes and scales
};

/// Items of 16 rows of a weight (bf16, Float8 or Int4Tile) by up to kGroups * 8 rows of x, one
/// after the other by all warps of a block: each warp takes 64 of the depth at a time. Blocks stay
/// for several items and ask for what comes next, of whatever item, while they multiply.
///
/// What is under way waits in shared memory, where every lane finds what it asked for itself:
/// nobody waits for another lane, and much more can be under way than in registers. Within the 64,
/// lanes hold neighbours of the depth: products do not mind in which order it is walked, as long as
/// weight and x agree.
///
/// Items has
///   void weight_rows(int item, int part, const W*& upper, const W*& lower): the rows that this
///   lane holds, lane / 4 and 8 more, as weight_row() gives them;
///   void x_rows(int item, int part, const __nv_bfloat16* (&x)[kGroups]): the row lane / 4 of each
///       group, null where there is none (zeros); called by all threads, before a part's x is read;
///   void finish(int item, Sums sums): what all warps found, in shared memory; called by all
///       threads;
///   kScalesParts, and if so float2 part_scale(int item, int part): what this lane's two rows of a
///       part count;
///   kReadsEarly: x may be read before wait_for_earlier_kernels();
///   kWindows: x comes in windows, see run_in_windows(), which wants in place of x_rows()
///     int depth(int part): of a part, a multiple of 32;
///     int num_rows(): of x, 1 to kGroups * 8;
///     const __nv_bfloat16* x_row(int part, int row);
///     void before_x(int part): called by all threads, before a part's x is read.
/// kWindow: of windows, the rows of pieces that one has for each warp.
template <class W, int kWarps, int kAheadBytes, int kGroups, int kSpans = 1, int kWindow = 0>
class WeightStream {
 public:
  static constexpr int kRows = 16;  ///< one side of a tensor-core product
  static constexpr int kSpan = 64;
  static constexpr int kDepth = kSpans * kSpan;  ///< of a piece
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kStride = kWarps * kDepth;  ///< from one piece of a warp to its next
  /// Where this warp's first piece of a part begins.
  __device__ static int first() { return static_cast<int>(threadIdx.x / 32) * kDepth; }
  /// What each warp has summed up, [warp][row of the item][row of x].
  struct Sums {
    float parts[kWarps][kRows][kGroups * 8];

    /// The sum of all, in an order that depends on nothing.
    __device__ __forceinline__ float total(int row, int column) const {
      float value = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) value += parts[w][row][column];
      return value;
    }
  };
  static constexpr int kSums = StreamedType<W>::kSums;
  static constexpr int kLaneBytes = kSpans * StreamedType<W>::kLaneBytes;
  /// Pieces of every warp that are under way.
  static constexpr int kAhead =
      (kAheadBytes - (kSums - 1) * static_cast<int>(sizeof(Sums))) / (kThreads * kLaneBytes);
  static_assert(kAhead >= 2);
  using Windows = RowWindows<kWarps, kGroups, kDepth, kWindow, std::is_same_v<W, Float8>>;
  /// Of a block.
  struct Shared {
    uint4 ring[kAhead * kThreads * kLaneBytes / sizeof(uint4)];
    Sums sums[kSums];
  };
  /// The same with windows.
  struct WindowedShared : Shared {
    Windows x;
  };

  /// k: the depth of each part, a multiple of 32; of no meaning with windows.
  __device__ WeightStream(int num_items, int num_parts, int k, Shared& shared)
      : num_items_(num_items),
        num_parts_(num_parts),
        k_(k),
        shared_(shared),
        ring_(shared.ring + threadIdx.x) {}

  /// Asks for the first pieces. Weights are constants: this may come before
  /// wait_for_earlier_kernels().
  template <class Items>
  __device__ __forceinline__ void begin(Items& items) {
    asked_ = start<Items>();
    if (num_items_ > 0) items.weight_rows(0, 0, upper_, lower_);
#pragma unroll
    for (int slot = 0; slot < kAhead; ++slot) ask(items, slot);
  }

  template <class Items>
  __device__ __forceinline__ void run(Items& items) {
    const __nv_bfloat16* x[kGroups];
    Rows rows;
    if (num_items_ == 0) return;
    items.x_rows(0, 0, x);
    load<Items::kReadsEarly>(x, first(), rows);
    int slot = 0;
    for (int item = 0; item < num_items_; ++item) {
      const typename Items::Ready ready = items.ready(item);
      float sums[kGroups][4] = {};
      for (int part = 0; part < num_parts_; ++part) {
        float before[kGroups][4];
        if constexpr (Items::kScalesParts) set_aside(sums, before);
        for (int at = first(); at < k_; at += kStride) {
          // Registers hold two sets of rows where pieces are short; else other warps work while the
          // next set comes.
          const Rows now = rows;
          if constexpr (kSpans == 1) load_next(items, item, part, at, x, rows);
          wait_for_copies<kAhead - 1>();
          multiply(slot, now, sums);
          if constexpr (kSpans > 1) load_next(items, item, part, at, x, rows);
          ask(items, slot);
          slot = slot + 1 == kAhead ? 0 : slot + 1;
        }
        if constexpr (Items::kScalesParts) add_scaled(items.part_scale(item, part), before, sums);
      }
      finish(items, item, sums, ready);
    }
  }

  /// The same where x comes in windows: the pieces of all rows that a warp will meet next, copied
  /// to its own shared memory. Of few rows one holds many pieces, and a warp seldom waits for x.
  /// Parts may differ in depth.
  template <class Items>
  __device__ __forceinline__ void run_in_windows(Items& items, WindowedShared& shared) {
    static_assert(Items::kWindows && kWindow > 0);
    Windows& x = shared.x;
    const int window = Windows::pieces(items.num_rows());
    typename Windows::Coming coming;
    int slot = 0;
    for (int item = 0; item < num_items_; ++item) {
      x.fetch(items, 0, 0, coming);
      const typename Items::Ready ready = items.ready(item);
      float sums[kGroups][4] = {};
      for (int part = 0; part < num_parts_; ++part) {
        float before[kGroups][4];
        if constexpr (Items::kScalesParts) set_aside(sums, before);
        const int depth = items.depth(part), pieces = (depth + kStride - 1) / kStride;
        for (int base = 0; base < pieces; base += window) {
          const int end = min(base + window, pieces), fetch_at = max(end - kLead, base);
          x.put(coming);
          for (int piece = base; piece < end; ++piece) {
            if (piece == fetch_at) {
              if (end < pieces) {
                x.fetch(items, part, end, coming);
              } else if (part + 1 < num_parts_) {
                x.fetch(items, part + 1, 0, coming);
              }
            }
            wait_for_copies<kAhead - 1>();
            if (piece * kStride + first() < depth) {
              Rows rows;
              x.take(piece - base, items.num_rows(), rows.of);
              multiply(slot, rows, sums);
            }
            ask(items, slot);
            slot = slot + 1 == kAhead ? 0 : slot + 1;
          }
        }
        if constexpr (Items::kScalesParts) add_scaled(items.part_scale(item, part), before, sums);
      }
      finish(items, item, sums, ready);
    }
  }

 private:
  // This lane's elements of the rows of x in a piece.
  struct Rows {
    uint4 of[kSpans][2][kGroups];
  };

  static constexpr bool kIs8 = std::is_same_v<W, Float8>;
  static constexpr bool kIs4 = std::is_same_v<W, Int4Tile>;
  static constexpr int kLoad = 16 / sizeof(W);      // elements of a load
  static constexpr int kLoads = kIs8 ? 1 : 2;       // of a row, lane and piece
  static constexpr int kLaneDepth = kIs8 ? 16 : 8;  // from one lane's elements to the next's
  static constexpr int kHalfStep = kIs8 ? 8 : 32;   // from a lane's first half to its second

  // Pieces before the end of a window at which the next is fetched. That may have to wait for an
  // earlier kernel, and what this window has should be done by then.
  static constexpr int kLead = 2;

  __device__ static int quarter() { return static_cast<int>(threadIdx.x % 4); }

  // Where a warp begins to ask. With windows all count the pieces of the first warp: of parts that
  // differ in depth, a warp may have nothing in one and something in the next.
  template <class Items>
  __device__ static int start() {
    return Items::kWindows ? 0 : first();
  }
  template <class Items>
  __device__ __forceinline__ void ask(Items& items, int slot) {
    int depth = k_, at = asked_;
    if constexpr (Items::kWindows) {
      if (asked_item_ < num_items_) depth = items.depth(asked_part_);
      at += first();
    }
    if (asked_item_ < num_items_ && asked_ < depth) {
      // Where only other warps have something of this piece, nothing is copied.
#pragma unroll
      for (int span = 0; span < kSpans; ++span) {
        if constexpr (kIs4) {
          if (at + span * kSpan < depth) ask_tile(slot, span, at + span * kSpan);
        } else {
          ask_rows(slot, span, at + span * kSpan, depth);
        }
      }
      asked_ += kStride;
      if (asked_ >= depth) {
        asked_ = start<Items>();
        if (++asked_part_ == num_parts_) {
          asked_part_ = 0;
          ++asked_item_;
        }
        if (asked_item_ < num_items_) items.weight_rows(asked_item_, asked_part_, upper_, lower_);
      }
    }
    commit_copies();
  }

  __device__ __forceinline__ void ask_rows(int slot, int span, int at, int depth) const {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int from = at + i * 32 + quarter() * kLoad;
      uint4* to = place_of(slot, span, i);
      copy_16(to, upper_ + from, from < depth);
      copy_16(to + kThreads, lower_ + from, from < depth);
    }
  }
  // Where the ring has a load of the upper row; the lower row's is kThreads behind it.
  __device__ __forceinline__ uint4* place_of(int slot, int span, int load) const {
    return ring_ + ((slot * kSpans + span) * kLoads + load) * 2 * kThreads;
  }

  // Of tiles, a lane's codes of both rows are one place of the ring; the scales of these rows have
  // theirs behind all codes.
  __device__ __forceinline__ void ask_tile(int slot, int span, int at) const {
    const auto ahead = static_cast<unsigned>(at / kSpan) * static_cast<unsigned>(sizeof(W));
    const unsigned codes_at = threadIdx.x % 32 * 8;
    const unsigned scales_at = sizeof(upper_->codes) + threadIdx.x % 32 / 4 * 4;
    const char* upper = reinterpret_cast<const char*>(upper_) + ahead;
    const char* lower = reinterpret_cast<const char*>(lower_) + ahead;
    uint2* codes = reinterpret_cast<uint2*>(ring_ + (slot * kSpans + span) * kThreads);
    unsigned* scales = reinterpret_cast<unsigned*>(scales_of(slot, span));
    copy_8(codes, upper + codes_at);
    copy_8(codes + 1, lower + codes_at);
    copy_4(scales, upper + scales_at);
    copy_4(scales + 1, lower + scales_at);
  }
  __device__ __forceinline__ uint2* scales_of(int slot, int span) const {
    return reinterpret_cast<uint2*>(shared_.ring + kAhead * kSpans * kThreads) +
           (slot * kSpans + span) * kThreads + threadIdx.x;
  }

  // The rows of the piece behind the one at `at`.
  template <class Items>
  __device__ __forceinline__ void load_next(Items& items, int item, int part, int at,
                                            const __nv_bfloat16* (&x)[kGroups], Rows& rows) const {
    int next = at + kStride;
    if (next >= k_) {
      next = first();
      if (part + 1 < num_parts_) {
        items.x_rows(item, part + 1, x);
      } else if (item + 1 < num_items_) {
        items.x_rows(item + 1, 0, x);
      }
    }
    load<Items::kReadsEarly>(x, next, rows);
  }
  // What an earlier kernel wrote is in the second cache; the first may hold what was there before.
  template <bool kEarly>
  __device__ __forceinline__ void load(const __nv_bfloat16* const (&x)[kGroups], int at,
                                       Rows& rows) const {
#pragma unroll
    for (int span = 0; span < kSpans; ++span) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int from = at + span * kSpan + half * kHalfStep + quarter() * kLaneDepth;
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          rows.of[span][half][g] = {0, 0, 0, 0};
          if (from >= k_ || x[g] == nullptr) continue;
          const auto* words = reinterpret_cast<const uint4*>(x[g] + from);
          if constexpr (kEarly) {
            rows.of[span][half][g] = __ldcg(words);
          } else {
            rows.of[span][half][g] = *words;
          }
        }
      }
    }
  }

  __device__ __forceinline__ void multiply(int slot, const Rows& rows,
                                           float (&sums)[kGroups][4]) const {
#pragma unroll
    for (int span = 0; span < kSpans; ++span) {
      Int4Span tile;
      if constexpr (kIs4) tile = take_tile(slot, span);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint4 w, v;
        if constexpr (kIs4) {
          w = widened_int4(half == 0 ? tile.codes.x : tile.codes.y, tile.scales[0], half);
          v = widened_int4(half == 0 ? tile.codes.z : tile.codes.w, tile.scales[1], half);
        } else {
          take(slot, span, half, w, v);
        }
        const unsigned front[4] = {w.x, v.x, w.y, v.y};
        const unsigned back[4] = {w.z, v.z, w.w, v.w};
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          const uint4 b = rows.of[span][half][g];
          multiply_16x8(sums[g], front, b.x, b.y);
          multiply_16x8(sums[g], back, b.z, b.w);
        }
      }
    }
  }

  // What a lane has of a span in 4 bits: the upper row's codes of both halves and the lower row's;
  // the upper row's scales of both halves and the lower row's, in bf16.
  struct Int4Span {
    uint4 codes;
    unsigned scales[2];
  };
  __device__ __forceinline__ Int4Span take_tile(int slot, int span) const {
    Int4Span tile;
    tile.codes = ring_[(slot * kSpans + span) * kThreads];
    const uint2 both = *scales_of(slot, span);
    // Of the four groups of each row those of this lane.
    widen_float8(__byte_perm(both.x, both.y, quarter() < 2 ? 0x6420u : 0x7531u), tile.scales);
    return tile;
  }
  // Eight elements of each row as bf16.
  __device__ __forceinline__ void take(int slot, int span, int half, uint4& w, uint4& v) const {
    const uint4* from = place_of(slot, span, kIs8 ? 0 : half);
    w = from[0];
    v = from[kThreads];
    if constexpr (kIs8) {
      w = widened(half == 0 ? w.x : w.z, half == 0 ? w.y : w.w);
      v = widened(half == 0 ? v.x : v.z, half == 0 ? v.y : v.w);
    }
  }
  __device__ static uint4 widened(unsigned low, unsigned high) {
    unsigned a[2], b[2];
    widen_float8(low, a);
    widen_float8(high, b);
    return {a[0], a[1], b[0], b[1]};
  }

  __device__ static void set_aside(float (&sums)[kGroups][4], float (&before)[kGroups][4]) {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        before[g][i] = sums[g][i];
        sums[g][i] = 0;
      }
    }
  }
  __device__ static void add_scaled(float2 scale, const float (&before)[kGroups][4],
                                    float (&sums)[kGroups][4]) {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sums[g][i] = before[g][i] + (i < 2 ? scale.x : scale.y) * sums[g][i];
      }
    }
  }

  // What an item is worth, once every warp has summed up.
  template <class Items>
  __device__ __forceinline__ void finish(Items& items, int item, const float (&sums)[kGroups][4],
                                         const typename Items::Ready& ready) {
    Sums& of_all = shared_.sums[item % kSums];
    put(sums, of_all);
    __syncthreads();
    items.finish(item, of_all, ready);
    // Of two, who writes here again has met those who still read at the barrier in between.
    if constexpr (kSums == 1) __syncthreads();
  }
  __device__ __forceinline__ void put(const float (&sums)[kGroups][4], Sums& of_all) {
    const int row = lane_row(), column = quarter() * 2;
    auto& parts = of_all.parts[threadIdx.x / 32];
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      *reinterpret_cast<float2*>(&parts[row][g * 8 + column]) = {sums[g][0], sums[g][1]};
      *reinterpret_cast<float2*>(&parts[row + 8][g * 8 + column]) = {sums[g][2], sums[g][3]};
    }
  }

  int num_items_, num_parts_, k_;
  Shared& shared_;
  uint4* ring_;
  // What is asked for next.
  int asked_item_ = 0, asked_part_ = 0, asked_ = 0;
  const W* upper_ = nullptr;
  const W* lower_ = nullptr;
};

}  // namespace fovea::cuda
