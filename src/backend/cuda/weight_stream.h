#pragma once

// Products of a few rows, bound by how fast weights come from memory. For .cu files.

#include <cstdint>
#include <type_traits>

#include "backend/cuda/block_cluster.h"
#include "backend/cuda/narrow_weights.h"
#include "backend/cuda/row_ring.h"
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
/// after the other by all warps of a block: each warp takes kSpans times 64 of the depth at a time.
/// Blocks stay for several items and ask for what comes next, of whatever item, while they
/// multiply.
///
/// Weights under way wait in shared memory, where every lane finds what it asked for itself:
/// nobody waits for another lane, and much more can be under way than in registers. Within the 64,
/// lanes hold neighbours of the depth: products do not mind in which order it is walked, as long as
/// weight and x agree.
///
/// Of many rows, x takes more loads than narrow weights do. Where all warps together take the whole
/// depth at a time, each keeps what it has of x. Where there is one item for a block and the depth
/// is long, kBlocks blocks of a cluster take it together for as many tiles of 16 rows: each
/// multiplies its part of x by all of them, and finishes one.
///
/// Items has
///   void weight_rows(int item, int part, int tile, const W*& upper, const W*& lower): the rows
///       that this lane holds, lane / 4 and 8 more, as weight_row() gives them;
///   void finish(int item, Sums sums): what all warps found, in shared memory; called by all
///       threads;
///   kScalesParts, and if so float2 part_scale(int item, int part, int tile): what this lane's two
///       rows of a part count;
///   kReadsEarly: x may be read before wait_for_earlier_kernels();
///   kPartsDiffer: in depth. If so, for run_in_windows() and run_in_rings(),
///     int depth(int part): a multiple of 32;
///     int num_rows(): of x, 1 to kGroups * 8;
///     const __nv_bfloat16* x_row(int part, int row);
///     void before_x(int part): called by all threads, before a part's x is read;
///   if not, for run(),
///     void x_rows(int item, int part, const __nv_bfloat16* (&x)[kGroups]): the row lane / 4 of
///         each group, null where there is none (zeros); called by all threads, before a part's x
///         is read;
///     kSharesX: all items have the same rows of x.
/// kAheadBytes: of shared memory, for the weights that are under way.
/// kWindow: of run_in_windows(), the rows of pieces of x that a window has for each warp.
template <class W, int kWarps, int kAheadBytes, int kGroups, int kSpans = 1, int kWindow = 0,
          int kBlocks = 1>
class WeightStream {
 public:
  static constexpr int kRows = 16;  ///< one side of a tensor-core product
  static constexpr int kSpan = 64;
  static constexpr int kDepth = kSpans * kSpan;  ///< of a piece
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kStride = kBlocks * kWarps * kDepth;  ///< from a warp's piece to its next
  /// Where this warp's first piece of a part begins.
  __device__ static int first() { return warp() * kDepth; }
  /// What each warp has summed up of a tile, [warp][row of the weight][row of x].
  struct Sums {
    float parts[kBlocks * kWarps][kRows][kGroups * 8];

    /// The sum of all, in an order that depends on nothing.
    __device__ __forceinline__ float total(int row, int column) const {
      float value = 0;
#pragma unroll
      for (int w = 0; w < kBlocks * kWarps; ++w) value += parts[w][row][column];
      return value;
    }
  };
  static constexpr int kSums = kBlocks == 1 ? StreamedType<W>::kSums : 1;  // a cluster has one item
  static constexpr int kLaneBytes = kBlocks * kSpans * StreamedType<W>::kLaneBytes;
  /// Pieces of every warp that are under way.
  static constexpr int kAhead =
      (kAheadBytes - (kSums - 1) * static_cast<int>(sizeof(Sums))) / (kThreads * kLaneBytes);
  static_assert(kAhead >= 2);
  using Windows = RowWindows<kWarps, kGroups, kDepth, kWindow, std::is_same_v<W, Float8>>;
  using Ring = RowRing<kWarps, kGroups, kSpans, kAhead, std::is_same_v<W, Float8>>;
  /// Of a block.
  struct Shared {
    uint4 ring[kAhead * kThreads * kLaneBytes / sizeof(uint4)];
    Sums sums[kSums];
  };
  /// The same with windows.
  struct WindowedShared : Shared {
    Windows x;
  };
  /// The same with x in a ring of its own.
  struct RingedShared : Shared {
    Ring x;
  };

  /// k: the depth of each part, a multiple of 32; of no meaning where parts differ.
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
    if (num_items_ > 0) find_rows(items);
#pragma unroll
    for (int slot = 0; slot < kAhead; ++slot) ask(items, slot);
  }

  template <class Items>
  __device__ __forceinline__ void run(Items& items) {
    static_assert(!Items::kPartsDiffer && kBlocks == 1);
    const __nv_bfloat16* x[kGroups];
    Rows rows;
    if (num_items_ == 0) return;
    const bool keeps_x = Items::kSharesX && num_parts_ == 1 && k_ <= kStride;
    items.x_rows(0, 0, x);
    load<Items::kReadsEarly>(x, first(), rows);
    int slot = 0;
    for (int item = 0; item < num_items_; ++item) {
      const typename Items::Ready ready = items.ready(item);
      Tiles sums = {};
      for (int part = 0; part < num_parts_; ++part) {
        Tiles before;
        if constexpr (Items::kScalesParts) set_aside(sums, before);
        for (int at = first(); at < k_; at += kStride) {
          // Registers hold two sets of rows where pieces are short; else other warps work while the
          // next set comes.
          const Rows now = rows;
          if constexpr (kSpans == 1) load_next(items, item, part, at, x, rows);
          wait_for_copies<kAhead - 1>();
          multiply(slot, now, sums);
          if (kSpans > 1 && !keeps_x) load_next(items, item, part, at, x, rows);
          ask(items, slot);
          slot = slot + 1 == kAhead ? 0 : slot + 1;
        }
        if constexpr (Items::kScalesParts) add_scaled(items, item, part, before, sums);
      }
      finish(items, item, sums, ready);
    }
  }

  /// The same where x comes in windows: the pieces of all rows that a warp will meet next, copied
  /// to its own shared memory. Of few rows one holds many pieces, and a warp seldom waits for x.
  /// Parts may differ in depth.
  template <class Items>
  __device__ __forceinline__ void run_in_windows(Items& items, WindowedShared& shared) {
    static_assert(Items::kPartsDiffer && kWindow > 0 && kBlocks == 1);
    Windows& x = shared.x;
    const int window = Windows::pieces(items.num_rows());
    typename Windows::Coming coming;
    int slot = 0;
    for (int item = 0; item < num_items_; ++item) {
      x.fetch(items, 0, 0, coming);
      const typename Items::Ready ready = items.ready(item);
      Tiles sums = {};
      for (int part = 0; part < num_parts_; ++part) {
        Tiles before;
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
        if constexpr (Items::kScalesParts) add_scaled(items, item, part, before, sums);
      }
      finish(items, item, sums, ready);
    }
  }

  /// The same of one item where x is asked for as weights are, as far ahead: of many rows windows
  /// have one piece, and a warp would wait for x at each.
  template <class Items>
  __device__ __forceinline__ void run_in_rings(Items& items, RingedShared& shared) {
    static_assert(Items::kPartsDiffer && Items::kReadsEarly);
    Ring& x = shared.x;
    int asked_part = 0, asked = 0;
    const auto ask_x = [&](int slot) {
      if (asked_part == num_parts_) return;
      if (asked == 0) items.before_x(asked_part);
      x.ask(items, asked_part, asked + first(), slot);
      asked += kStride;
      if (asked < items.depth(asked_part)) return;
      asked = 0;
      ++asked_part;
    };
    // Weights came first: x may have to wait for an earlier kernel.
#pragma unroll
    for (int slot = 0; slot < kAhead; ++slot) {
      ask_x(slot);
      commit_copies();
    }
    const typename Items::Ready ready = items.ready(0);
    Tiles sums = {};
    int slot = 0;
    for (int part = 0; part < num_parts_; ++part) {
      Tiles before;
      if constexpr (Items::kScalesParts) set_aside(sums, before);
      const int depth = items.depth(part);
      for (int at = 0; at < depth; at += kStride) {
        wait_for_copies<kAhead - 1>();
        Rows rows;
        x.take(slot, rows.of);
        if (at + first() < depth) multiply(slot, rows, sums);
        ask_x(slot);
        ask(items, slot);
        slot = slot + 1 == kAhead ? 0 : slot + 1;
      }
      if constexpr (Items::kScalesParts) add_scaled(items, 0, part, before, sums);
    }
    finish(items, 0, sums, ready);
  }

 private:
  // What a lane has of the sums, of a tile for each block of the cluster.
  using Tiles = float[kBlocks][kGroups][4];
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

  // Of all that take the depth.
  __device__ static int warp() {
    const int own = static_cast<int>(threadIdx.x / 32);
    return kBlocks == 1 ? own : static_cast<int>(cluster_rank()) * kWarps + own;
  }
  __device__ static int quarter() { return static_cast<int>(threadIdx.x % 4); }

  // Where a warp begins to ask. Of parts that differ in depth all count the pieces of the first
  // warp: a warp may have nothing in one part and something in the next.
  template <class Items>
  __device__ static int start() {
    return Items::kPartsDiffer ? 0 : first();
  }
  template <class Items>
  __device__ __forceinline__ void ask(Items& items, int slot) {
    int depth = k_, at = asked_;
    if constexpr (Items::kPartsDiffer) {
      if (asked_item_ < num_items_) depth = items.depth(asked_part_);
      at += first();
    }
    if (asked_item_ < num_items_ && asked_ < depth) {
      // Where only other warps have something of this piece, nothing is copied.
#pragma unroll
      for (int tile = 0; tile < kBlocks; ++tile) {
        if constexpr (kIs4) {
          ask_tiles(slot, tile, at, depth);
        } else {
#pragma unroll
          for (int span = 0; span < kSpans; ++span) {
            ask_rows(slot, tile, span, at + span * kSpan, depth);
          }
        }
      }
      asked_ += kStride;
      if (asked_ >= depth) {
        asked_ = start<Items>();
        if (++asked_part_ == num_parts_) {
          asked_part_ = 0;
          ++asked_item_;
        }
        if (asked_item_ < num_items_) find_rows(items);
      }
    }
    commit_copies();
  }
  template <class Items>
  __device__ __forceinline__ void find_rows(Items& items) {
#pragma unroll
    for (int tile = 0; tile < kBlocks; ++tile) {
      items.weight_rows(asked_item_, asked_part_, tile, upper_[tile], lower_[tile]);
    }
  }

  __device__ __forceinline__ void ask_rows(int slot, int tile, int span, int at, int depth) const {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int from = at + i * 32 + quarter() * kLoad;
      uint4* to = place_of(slot, tile, span, i);
      copy_16(to, upper_[tile] + from, from < depth);
      copy_16(to + kThreads, lower_[tile] + from, from < depth);
    }
  }
  // Which of the ring's spans one is.
  __device__ static constexpr int index_of(int slot, int tile, int span) {
    return (slot * kBlocks + tile) * kSpans + span;
  }
  // Where the ring has a load of the upper row; the lower row's is kThreads behind it.
  __device__ __forceinline__ uint4* place_of(int slot, int tile, int span, int load) const {
    return ring_ + (index_of(slot, tile, span) * kLoads + load) * 2 * kThreads;
  }

  // Of tiles, a lane's codes of both rows are one place of the ring; the scales of these rows have
  // theirs behind all codes.
  __device__ __forceinline__ void ask_tiles(int slot, int tile, int at, int depth) const {
    const auto ahead = static_cast<unsigned>(at / kSpan) * static_cast<unsigned>(sizeof(W));
    const unsigned codes_at = ahead + threadIdx.x % 32 * 8;
    const unsigned scales_at = ahead + sizeof(W::codes) + threadIdx.x % 32 / 4 * 4;
    const char* upper = reinterpret_cast<const char*>(upper_[tile]);
    const char* lower = reinterpret_cast<const char*>(lower_[tile]);
    const char *upper_codes = upper + codes_at, *lower_codes = lower + codes_at;
    const char *upper_scales = upper + scales_at, *lower_scales = lower + scales_at;
    // Constant from here on: what a copy takes beside itself is its offsets.
#pragma unroll
    for (int span = 0; span < kSpans; ++span) {
      if (at + span * kSpan >= depth) break;
      constexpr int kBytes = sizeof(W);
      uint2* codes = reinterpret_cast<uint2*>(ring_ + index_of(slot, tile, span) * kThreads);
      unsigned* scales = reinterpret_cast<unsigned*>(scales_of(slot, tile, span));
      copy_8(codes, upper_codes + span * kBytes);
      copy_8(codes + 1, lower_codes + span * kBytes);
      copy_4(scales, upper_scales + span * kBytes);
      copy_4(scales + 1, lower_scales + span * kBytes);
    }
  }
  __device__ __forceinline__ uint2* scales_of(int slot, int tile, int span) const {
    return reinterpret_cast<uint2*>(shared_.ring + kAhead * kBlocks * kSpans * kThreads) +
           index_of(slot, tile, span) * kThreads + threadIdx.x;
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

  __device__ __forceinline__ void multiply(int slot, const Rows& rows, Tiles& sums) const {
#pragma unroll
    for (int t = 0; t < kBlocks; ++t) {
#pragma unroll
      for (int span = 0; span < kSpans; ++span) {
        Int4Span codes;
        if constexpr (kIs4) codes = take_tile(slot, t, span);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          uint4 w, v;
          if constexpr (kIs4) {
            w = widened_int4(half == 0 ? codes.upper.x : codes.upper.y, codes.scales[0], half);
            v = widened_int4(half == 0 ? codes.lower.x : codes.lower.y, codes.scales[1], half);
          } else {
            take(slot, t, span, half, w, v);
          }
          const unsigned front[4] = {w.x, v.x, w.y, v.y};
          const unsigned back[4] = {w.z, v.z, w.w, v.w};
#pragma unroll
          for (int g = 0; g < kGroups; ++g) {
            const uint4 b = rows.of[span][half][g];
            multiply_16x8(sums[t][g], front, b.x, b.y);
            multiply_16x8(sums[t][g], back, b.z, b.w);
          }
        }
      }
    }
  }

  // What a lane has of a span in 4 bits: the codes of both halves of each row, and their scales in
  // bf16.
  struct Int4Span {
    uint2 upper, lower;
    unsigned scales[2];
  };
  __device__ __forceinline__ Int4Span take_tile(int slot, int tile, int span) const {
    const uint4 codes = ring_[index_of(slot, tile, span) * kThreads];
    Int4Span taken{{codes.x, codes.y}, {codes.z, codes.w}, {}};
    const uint2 both = *scales_of(slot, tile, span);
    // Of the four groups of each row those of this lane.
    widen_float8(__byte_perm(both.x, both.y, quarter() < 2 ? 0x6420u : 0x7531u), taken.scales);
    return taken;
  }
  // Eight elements of each row as bf16.
  __device__ __forceinline__ void take(int slot, int tile, int span, int half, uint4& w,
                                       uint4& v) const {
    const uint4* from = place_of(slot, tile, span, kIs8 ? 0 : half);
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

  __device__ static void set_aside(Tiles& sums, Tiles& before) {
#pragma unroll
    for (int t = 0; t < kBlocks; ++t) {
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          before[t][g][i] = sums[t][g][i];
          sums[t][g][i] = 0;
        }
      }
    }
  }
  template <class Items>
  __device__ static __forceinline__ void add_scaled(Items& items, int item, int part,
                                                    const Tiles& before, Tiles& sums) {
#pragma unroll
    for (int t = 0; t < kBlocks; ++t) {
      const float2 scale = items.part_scale(item, part, t);
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          sums[t][g][i] = before[t][g][i] + (i < 2 ? scale.x : scale.y) * sums[t][g][i];
        }
      }
    }
  }

  // What an item is worth, once every warp has summed up.
  template <class Items>
  __device__ __forceinline__ void finish(Items& items, int item, const Tiles& sums,
                                         const typename Items::Ready& ready) {
    Sums& of_all = shared_.sums[item % kSums];
    if constexpr (kBlocks == 1) {
      put(sums, of_all);
      __syncthreads();
    } else {
      cluster_wait();  // for the others' beginning: they have shared memory now
      put(sums, of_all);
      cluster_sync();
    }
    items.finish(item, of_all, ready);
    // Of two, who writes here again has met those who still read at the barrier in between.
    if constexpr (kSums == 1) __syncthreads();
  }
  __device__ __forceinline__ void put(const Tiles& sums, Sums& of_all) {
    const int row = lane_row(), column = quarter() * 2;
    auto& parts = of_all.parts[warp()];
#pragma unroll
    for (int t = 0; t < kBlocks; ++t) {
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        const float2 upper = {sums[t][g][0], sums[t][g][1]};
        const float2 lower = {sums[t][g][2], sums[t][g][3]};
        auto* upper_at = reinterpret_cast<float2*>(&parts[row][g * 8 + column]);
        auto* lower_at = reinterpret_cast<float2*>(&parts[row + 8][g * 8 + column]);
        if constexpr (kBlocks == 1) {
          *upper_at = upper;
          *lower_at = lower;
        } else {
          store_to_block(upper_at, upper, static_cast<unsigned>(t));
          store_to_block(lower_at, lower, static_cast<unsigned>(t));
        }
      }
    }
  }

  int num_items_, num_parts_, k_;
  Shared& shared_;
  uint4* ring_;
  // What is asked for next.
  int asked_item_ = 0, asked_part_ = 0, asked_ = 0;
  const W* upper_[kBlocks] = {};
  const W* lower_[kBlocks] = {};
};

}  // namespace fovea::cuda
