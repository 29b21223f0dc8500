#include "backend/cuda/native_kernels.h"
#include "backend/cuda/weight_stream.h"
#include "kernels/common.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

// gelu_erf(h) * (g + 1)
__device__ __forceinline__ float gated(float h, float g) {
  return kernels::gelu_erf(h) * (g + 1.0f);
}

// The index-th of the pieces into which the experts' places fall, at most `size` places of one
// expert each; expert -1 when there are fewer. Every warp finds it by itself.
struct Piece {
  int expert, begin, end;
};
__device__ __forceinline__ Piece find_piece(const std::int32_t* offsets, int num_experts, int size,
                                            int index) {
  const int lane = threadIdx.x % 32;
  for (int base = 0; base < num_experts; base += 32) {
    const int expert = base + lane;
    const int begin = expert < num_experts ? offsets[expert] : 0;
    const int end = expert < num_experts ? offsets[expert + 1] : 0;
    const int count = (end - begin + size - 1) / size;
    int before = count;  // pieces of this expert and those in front of it
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0u, before, step);
      if (lane >= step) before += other;
    }
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

// ---- few rows: every weight that is needed comes from memory once

// A block has several items in turn; three share a multiprocessor. Where a single row's blocks have
// one each, they are larger.
constexpr int kStreamWarps = 8, kAheadBytes = 64 << 10, kBlocksOfMultiprocessor = 3;
constexpr int kRowWarps = 16, kRowAheadBytes = 96 << 10;
// Of every expert one that is not full, and the full ones.
constexpr int kMostPieces = kMostNativeExperts + kMostStreamedExpertRows * kMostNativeChoices / 16;

__device__ __forceinline__ int stream_row() { return static_cast<int>(threadIdx.x) % 32 / 4; }

// The pieces of all experts, in shared memory; of a single row, its choices as they are. Called by
// all threads.
__device__ __forceinline__ int list_pieces(const ExpertProduct& p, int size, Piece* pieces) {
  const int lane = threadIdx.x % 32;
  if (p.num_rows == 1) {
    for (int i = threadIdx.x; i < p.num_pairs; i += blockDim.x)
      pieces[i] = {__ldcg(p.experts + i), i, i + 1};
    __syncthreads();
    return p.num_pairs;
  }
  int count = 0;
  for (int base = 0; base < p.num_experts; base += 32) {  // every warp, so that all know the count
    const int expert = base + lane;
    const int begin = expert < p.num_experts ? __ldcg(p.offsets + expert) : 0;
    const int end = expert < p.num_experts ? __ldcg(p.offsets + expert + 1) : 0;
    const int own = (end - begin + size - 1) / size;
    int before = own;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0u, before, step);
      if (lane >= step) before += other;
    }
    if (threadIdx.x < 32) {
      for (int i = 0; i < own; ++i) {
        const int from = begin + i * size;
        pieces[count + before - own + i] = {expert, from, min(from + size, end)};
      }
    }
    count += __shfl_sync(~0u, before, 31);
  }
  __syncthreads();
  return count;
}

// Of the first product, an item is 8 rows of h and the 8 of g that belong to them, so that the gate
// needs no pass of its own. All rows of a piece come one after the other: one block's items are
// mostly of one expert.
template <class Stream, class W, int kGroups, bool kUp>
class ExpertItems {
 public:
  static constexpr bool kScalesParts = false;
  static constexpr int kOutputs = kUp ? 8 : 16;

  __device__ ExpertItems(const ExpertProduct& p, const Piece* pieces, int num_pieces)
      : p_(p), pieces_(pieces), num_pieces_(num_pieces) {}
  __device__ int count() const {
    const int items = tiles() * num_pieces_;
    return (items - static_cast<int>(blockIdx.x) + static_cast<int>(gridDim.x) - 1) /
           static_cast<int>(gridDim.x);
  }
  __device__ __forceinline__ void weight_rows(int item, int, const W*& upper,
                                              const W*& lower) const {
    const auto* weight = static_cast<const W*>(p_.weights[piece(item).expert]);
    const int n = min(first_output(item) + stream_row(), outputs() - 1);
    const int other =
        kUp ? outputs() + n : min(first_output(item) + stream_row() + 8, outputs() - 1);
    upper = weight + n * static_cast<std::size_t>(p_.k);
    lower = weight + other * static_cast<std::size_t>(p_.k);
  }
  __device__ __forceinline__ void x_rows(int item, int, const __nv_bfloat16* (&x)[kGroups]) const {
    const Piece of = piece(item);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int place = of.begin + g * 8 + stream_row();
      x[g] = nullptr;
      if (place < of.end) {
        const int row = !kUp ? place : p_.num_rows == 1 ? 0 : __ldcg(p_.row_of_place + place);
        x[g] = static_cast<const __nv_bfloat16*>(p_.x) + row * static_cast<std::size_t>(p_.k);
      }
    }
  }
  __device__ __forceinline__ void finish(int item, const typename Stream::Sums& sums) const {
    const Piece of = piece(item);
    const float* scale = p_.scales[of.expert];
    for (int i = threadIdx.x; i < kOutputs * (of.end - of.begin); i += Stream::kThreads) {
      const int r = i % kOutputs, t = i / kOutputs, n = first_output(item) + r;
      if (n >= outputs()) continue;
      const std::size_t at = static_cast<std::size_t>(of.begin + t) * outputs() + n;
      float value = sums.total(r, t);
      if (scale != nullptr) value *= scale[n];
      if constexpr (kUp) {
        float gate = sums.total(r + 8, t);
        if (scale != nullptr) gate *= scale[outputs() + n];
        value = gated(value, gate);
        // A single row's results are summed up as they come: its weights go in here.
        if (p_.num_rows == 1) value *= p_.routing[of.begin];
        static_cast<__nv_bfloat16*>(p_.y)[at] = __float2bfloat16_rn(value);
      } else {
        static_cast<float*>(p_.y)[at] = value;
      }
    }
  }

 private:
  __device__ int outputs() const { return kUp ? p_.n / 2 : p_.n; }
  __device__ int tiles() const { return (outputs() + kOutputs - 1) / kOutputs; }
  __device__ int index(int item) const { return static_cast<int>(blockIdx.x + item * gridDim.x); }
  __device__ const Piece& piece(int item) const { return pieces_[index(item) / tiles()]; }
  __device__ int first_output(int item) const { return index(item) % tiles() * kOutputs; }

  const ExpertProduct& p_;
  const Piece* pieces_;
  int num_pieces_;
};

template <class W, int kGroups, bool kUp>
__global__ void __launch_bounds__(kStreamWarps * 32, kBlocksOfMultiprocessor)
    stream_experts(ExpertProduct p) {
  using Stream = WeightStream<W, kStreamWarps, kAheadBytes, kGroups>;
  extern __shared__ __align__(16) char shared[];
  __shared__ Piece pieces[kMostPieces];
  if constexpr (kUp) kernels::wait_for_earlier_kernels();
  // The places of the second product are those of the first, whose inputs are complete by now.
  const int num_pieces = list_pieces(p, kGroups * 8, pieces);
  ExpertItems<Stream, W, kGroups, kUp> items(p, pieces, num_pieces);
  Stream stream(items.count(), 1, p.k, *reinterpret_cast<typename Stream::Shared*>(shared));
  stream.begin(items);
  if constexpr (!kUp) kernels::wait_for_earlier_kernels();
  kernels::let_later_kernels_start();
  stream.run(items);
}

// The second product of a single row: y += the sum over its choices, each of which is a part.
template <class Stream, class W>
class RowItems {
 public:
  static constexpr bool kScalesParts = sizeof(W) == 1;

  __device__ RowItems(const ExpertProduct& p, const Piece* choices) : p_(p), choices_(choices) {}
  __device__ int count() const {
    const int tiles = (p_.n + 15) / 16;
    return (tiles - static_cast<int>(blockIdx.x) + static_cast<int>(gridDim.x) - 1) /
           static_cast<int>(gridDim.x);
  }
  __device__ __forceinline__ void weight_rows(int item, int part, const W*& upper,
                                              const W*& lower) const {
    const auto* weight = static_cast<const W*>(p_.weights[choices_[part].expert]);
    const int n = first_row(item) + stream_row();
    upper = weight + min(n, p_.n - 1) * static_cast<std::size_t>(p_.k);
    lower = weight + min(n + 8, p_.n - 1) * static_cast<std::size_t>(p_.k);
  }
  __device__ __forceinline__ float2 part_scale(int item, int part) const {
    const float* scale = p_.scales[choices_[part].expert];
    if (scale == nullptr) return {1, 1};
    const int n = first_row(item) + stream_row();
    return {scale[min(n, p_.n - 1)], scale[min(n + 8, p_.n - 1)]};
  }
  __device__ __forceinline__ void x_rows(int, int part, const __nv_bfloat16* (&x)[1]) const {
    x[0] = stream_row() == 0
               ? static_cast<const __nv_bfloat16*>(p_.x) + part * static_cast<std::size_t>(p_.k)
               : nullptr;
  }
  __device__ __forceinline__ void finish(int item, const typename Stream::Sums& sums) const {
    const int n = first_row(item) + static_cast<int>(threadIdx.x);
    if (threadIdx.x >= Stream::kRows || n >= p_.n) return;
    auto* y = static_cast<__nv_bfloat16*>(p_.y) + n;
    *y = __float2bfloat16_rn(__bfloat162float(*y) + sums.total(static_cast<int>(threadIdx.x), 0));
  }

 private:
  __device__ static int first_row(int item) {
    return static_cast<int>(blockIdx.x + item * gridDim.x) * 16;
  }
  const ExpertProduct& p_;
  const Piece* choices_;
};

template <class W, int kWarps, int kAhead>
__global__ void __launch_bounds__(kWarps * 32, 1) add_experts_of_row(ExpertProduct p) {
  using Stream = WeightStream<W, kWarps, kAhead, 1>;
  extern __shared__ __align__(16) char shared[];
  __shared__ Piece choices[kMostNativeChoices];
  const int num_choices = list_pieces(p, 1, choices);
  RowItems<Stream, W> items(p, choices);
  Stream stream(items.count(), num_choices, p.k,
                *reinterpret_cast<typename Stream::Shared*>(shared));
  stream.begin(items);
  kernels::wait_for_earlier_kernels();
  kernels::let_later_kernels_start();
  stream.run(items);
}

// ---- many rows: tiles of 128 places of an expert by 128 rows of its weight

constexpr int kTileRows = 128, kTileCols = 128, kTileDepth = 64;
constexpr int kTileWarps = 8;  // two of 64 places by four of 32 columns
constexpr int kTileThreads = kTileWarps * 32;
constexpr int kStride = kTileDepth + 8;  // keeps the lanes of a load in different banks

// The shared memory of a tile: slices of x and of the weight that are under way. Weights in 8 bits
// come as they are, and are widened to a place of their own when it is their turn.
template <class W, int kStages>
struct TileMemory {
  static constexpr bool kWidens = sizeof(W) == 1;
  static constexpr int kWeightStride = kWidens ? kTileDepth : kStride;

  __nv_bfloat16 x[kStages][kTileRows * kStride];
  W weight[kStages][kTileCols * kWeightStride];
  __nv_bfloat16 widened[kWidens ? kTileCols * kStride : 8];
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

// Grid: x = tiles of columns, y = tiles of places. Of the first product, the columns of a tile are
// 64 of h and the 64 of g that belong to them, eight and eight in turn: a lane holds both.
template <class W, bool kUp, int kStages>
__global__ void __launch_bounds__(kTileThreads, 2) tile_experts(ExpertProduct p) {
  using Memory = TileMemory<W, kStages>;
  extern __shared__ __align__(16) char scratch[];
  auto& memory = *reinterpret_cast<Memory*>(scratch);
  kernels::wait_for_earlier_kernels();
  kernels::let_later_kernels_start();
  const Piece piece = find_piece(p.offsets, p.num_experts, kTileRows, blockIdx.y);
  if (piece.expert < 0) return;
  constexpr int kOutputs = kUp ? kTileCols / 2 : kTileCols;
  const int n0 = blockIdx.x * kOutputs, num_columns = kUp ? p.n / 2 : p.n;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int warp_row = warp % 2 * 64, warp_col = warp / 2 * 32;
  const std::size_t k = static_cast<std::size_t>(p.k);
  const auto* x_rows = static_cast<const __nv_bfloat16*>(p.x);
  const auto* weight = static_cast<const W*>(p.weights[piece.expert]);
  const SliceCopies<__nv_bfloat16, kStride> x_copies(
      [&](int r) -> const __nv_bfloat16* {
        const int place = piece.begin + r;
        if (place >= piece.end) return nullptr;
        return x_rows + (kUp ? p.row_of_place[place] : place) * k;
      },
      p.k, p.x);
  const SliceCopies<W, Memory::kWeightStride> weight_copies(
      [&](int r) -> const W* {
        const int n = n0 + (kUp ? r / 16 * 8 + r % 8 : r);
        if (n >= num_columns) return nullptr;
        return weight + (n + (kUp && r % 16 >= 8 ? num_columns : 0)) * k;
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
          const float* h = sums[i][j] + half * 2;
          const float* g = sums[i][j + 1] + half * 2;
          *reinterpret_cast<unsigned*>(static_cast<__nv_bfloat16*>(p.y) + at) =
              pair_of(gated(scaled(h[0], n), scaled(g[0], num_columns + n)),
                      gated(scaled(h[1], n + 1), scaled(g[1], num_columns + n + 1)));
        } else {
          *reinterpret_cast<float2*>(static_cast<float*>(p.y) + at) = {
              scaled(sums[i][j][half * 2], n), scaled(sums[i][j][half * 2 + 1], n + 1)};
        }
      }
    }
  }
}

template <class W, int kGroups>
cudaError_t stream(const ExpertProduct& p, bool up, int multiprocessors, KernelStream on) {
  using Stream = WeightStream<W, kStreamWarps, kAheadBytes, kGroups>;
  const auto blocks = static_cast<unsigned>(multiprocessors * kBlocksOfMultiprocessor);
  return launch_behind(up ? stream_experts<W, kGroups, true> : stream_experts<W, kGroups, false>,
                       dim3(blocks), Stream::kThreads, on, p,
                       static_cast<int>(sizeof(typename Stream::Shared)));
}

template <class W, int kWarps, int kAhead>
cudaError_t add_row(const ExpertProduct& p, KernelStream on) {
  using Stream = WeightStream<W, kWarps, kAhead, 1>;
  const auto tiles = static_cast<unsigned>((p.n + Stream::kRows - 1) / Stream::kRows);
  return launch_behind(add_experts_of_row<W, kWarps, kAhead>, dim3(tiles), Stream::kThreads, on, p,
                       static_cast<int>(sizeof(typename Stream::Shared)));
}

template <class W>
cudaError_t stream(const ExpertProduct& p, bool up, KernelStream on) {
  const DeviceRoom room = device_room();
  if (p.num_rows == 1 && !up) {
    using Large = WeightStream<W, kRowWarps, kRowAheadBytes, 1>;
    return room.shared_bytes >= static_cast<int>(sizeof(typename Large::Shared)) + 1024
               ? add_row<W, kRowWarps, kRowAheadBytes>(p, on)
               : add_row<W, kStreamWarps, kAheadBytes>(p, on);
  }
  return p.num_rows <= 8 ? stream<W, 1>(p, up, room.multiprocessors, on)
                         : stream<W, 2>(p, up, room.multiprocessors, on);
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

cudaError_t expert_product(const ExpertProduct& p, bool up, KernelStream on) {
  if (p.num_rows <= kMostStreamedExpertRows) {
    return p.weights_are_f8 ? stream<Float8>(p, up, on) : stream<__nv_bfloat16>(p, up, on);
  }
  return p.weights_are_f8 ? tile<Float8>(p, up, on) : tile<__nv_bfloat16>(p, up, on);
}

}  // namespace fovea::cuda
