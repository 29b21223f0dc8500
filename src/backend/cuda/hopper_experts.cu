#include <cuda.h>

#include "backend/cuda/device_room.h"
#include "backend/cuda/expert_places.h"
#include "backend/cuda/hopper_experts.h"
#include "backend/cuda/tensor_core.h"
#include "backend/cuda/tensor_maps.h"
#include "backend/cuda/weight_stream.h"
#include "backend/cuda/wgmma_widths.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

struct HopperExpertsCall {
  ExpertProduct product;
  CUtensorMap weights[HopperExperts::kMostExperts];
};

// A block works on one tile after the other. One warpgroup copies slices of the weight and of x, of
// which only the latter takes more than one thread; two multiply them. The copies are ahead by as
// many slices as there is room for, whatever tile they are of.
//
// The weight is the product's left side, of which tensor cores take multiples of 64 rows; places
// are its right side, of which any multiple of 8 will do (of 32 here: each is a kernel's code). A
// tile of up to 128 places has 256 rows of the weight (it is wide), one of up to 256 places has
// 128: either way a weight is read once for up to 256 places.
constexpr int kMultiplyingThreads = 256, kCopyingThreads = 128;
constexpr int kThreads = kMultiplyingThreads + kCopyingThreads;
constexpr int kWideRows = 256, kTallRows = 128;
constexpr int kWidePlaces = 128, kTallPlaces = 256;
constexpr int kCopiedPlaces = 16;              // at a time
constexpr int kRowBytes = 128;                 // of a slice of the depth: 64 bf16 or 128 e4m3
constexpr int kEightRows = 8 * kRowBytes;      // what the swizzle repeats itself after
constexpr int kOperandBytes = 64 * kRowBytes;  // the left side of a product
constexpr int kBoxRows = 128;                  // of the weight, copied at once
constexpr int kBoxBytes = kBoxRows * kRowBytes;
constexpr int kStageBytes = (kWideRows + kWidePlaces) * kRowBytes;
static_assert(kWideRows + kWidePlaces == kTallRows + kTallPlaces);
constexpr int kStages = 4;
constexpr int kSharedBytes = kStages * kStageBytes + kEightRows;  // with what aligns it
// What multiplies takes the registers that copying leaves: its sums alone are 128.
constexpr int kMultiplyingRegisters = 224, kCopyingRegisters = 56;

// How both operands are stored. Sums of e4m3 lose what cuBLASLt's quick ones lose: nothing beside
// what rounding to eight bits has cost.
template <class W>
constexpr Elements kElementsOf = sizeof(W) == 1 ? Elements::kE4m3 : Elements::kBf16;
template <class W>
constexpr int kSlice = kRowBytes / static_cast<int>(sizeof(W));

struct Tile {
  int expert, begin, count;  // places
  int first;                 // of its outputs
  bool is_wide;
};

// All tiles of a product, in the order in which blocks take them: neighbours share the weight, or
// else the places.
template <bool kUp>
class TileList {
 public:
  // first_tiles [num_experts + 1]: filled by one warp.
  __device__ static void fill(const ExpertProduct& p, int* first_tiles) {
    const int lane = threadIdx.x % 32;
    int before = 0;
    for (int base = 0; base < p.num_experts; base += 32) {
      const int expert = base + lane;
      int tiles = 0;
      if (expert < p.num_experts) {
        const int count = __ldcg(p.offsets + expert + 1) - __ldcg(p.offsets + expert);
        const int of_tile = outputs_of(count <= kWidePlaces);
        tiles = pieces_of(count) * ((outputs(p) + of_tile - 1) / of_tile);
      }
      const int sum = prefix_sum(tiles);
      if (expert < p.num_experts) first_tiles[expert + 1] = before + sum;
      before += __shfl_sync(~0u, sum, 31);
    }
    if (lane == 0) first_tiles[0] = 0;
  }

  __device__ TileList(const ExpertProduct& p, const int* first_tiles)
      : p_(p), first_tiles_(first_tiles), at_(blockIdx.x) {}

  // This block's next tile. False: there is none.
  __device__ __forceinline__ bool next(Tile& tile) {
    while (expert_ < p_.num_experts && first_tiles_[expert_ + 1] <= at_) ++expert_;
    if (expert_ == p_.num_experts) return false;
    const int begin = __ldcg(p_.offsets + expert_);
    const int count = __ldcg(p_.offsets + expert_ + 1) - begin;
    const int pieces = pieces_of(count), index = at_ - first_tiles_[expert_];
    const int piece = index % pieces, larger = count % pieces;
    tile.expert = expert_;
    tile.begin = begin + piece * (count / pieces) + min(piece, larger);
    tile.count = count / pieces + (piece < larger ? 1 : 0);
    tile.is_wide = count <= kWidePlaces;
    tile.first = index / pieces * outputs_of(tile.is_wide);
    at_ += gridDim.x;
    return true;
  }

  __device__ static int outputs(const ExpertProduct& p) { return kUp ? p.n / 2 : p.n; }

 private:
  __device__ static int pieces_of(int count) { return (count + kTallPlaces - 1) / kTallPlaces; }
  __device__ static int outputs_of(bool is_wide) {
    return (is_wide ? kWideRows : kTallRows) / (kUp ? 2 : 1);
  }

  const ExpertProduct& p_;
  const int* first_tiles_;
  int at_, expert_ = 0;
};

// Of the first product, every 16 rows of a tile are 8 of h and the 8 of g that belong to them: a
// lane holds both. Where among the tile's outputs the 8 (of the second product: the 16) begin that
// are in its 16 rows number i; the two operands of a warpgroup share sectors of what is written.
template <bool kUp>
__device__ __forceinline__ int output_at(int i) {
  return kUp ? (i / 8 * 8 + i % 4 * 2 + i / 4 % 2) * 8 : i * 16;
}

// The slices that are under way, and barriers that tell who may use them.
struct Ring {
  char* slices;
  unsigned full, empty;  // in shared memory, 8 bytes for each stage
  int stage = 0;
  unsigned parity = 0;  // of `full`; that of `empty` is the other

  __device__ char* slice() const { return slices + stage * kStageBytes; }
  __device__ void wait_until_full() const { wait_for(full + stage * 8, parity); }
  __device__ void wait_until_empty() const { wait_for(empty + stage * 8, parity ^ 1); }
  __device__ void advance() {
    stage = stage + 1 == kStages ? 0 : stage + 1;
    if (stage == 0) parity ^= 1;
  }
};

// A slice of a tile's weight, in one or two boxes: for one thread.
template <class W, bool kUp>
__device__ __forceinline__ void ask_weight(const HopperExpertsCall& call, const Tile& tile,
                                           int depth, char* slice, unsigned full,
                                           std::uint64_t policy) {
  const int boxes = tile.is_wide ? kWideRows / kBoxRows : kTallRows / kBoxRows;
  arrive_expecting(full, static_cast<unsigned>(boxes * kBoxBytes));
  for (int i = 0; i < boxes; ++i) {
    // In rows of the map: 16 outputs of the first product are one.
    const int row = kUp ? tile.first / 16 + i * (kBoxRows / 32) : tile.first + i * kBoxRows;
    copy_box(shared_address(slice + i * kBoxBytes), &call.weights[tile.expert], depth, 0, 0,
             kUp ? row : 0, kUp ? 0 : row, full, policy);
  }
}

// What a thread copies of x: 16 bytes of every sixteenth place. A place that is not there is a copy
// of the last one: nobody looks at what comes of it.
template <class W, bool kUp>
class PlaceCopies {
 public:
  __device__ PlaceCopies(const ExpertProduct& p, const Tile& tile)
      : p_(p), steps_((tile.count + kCopiedPlaces - 1) / kCopiedPlaces) {
    at_ = (tile.is_wide ? kWideRows : kTallRows) * kRowBytes + row() / 8 * kEightRows +
          row() % 8 * kRowBytes + (chunk() ^ row() % 8) * 16;
#pragma unroll
    for (int i = 0; i < kTallPlaces / kCopiedPlaces; ++i) {
      if (i >= steps_) break;
      const int place = tile.begin + min(i * kCopiedPlaces + row(), tile.count - 1);
      rows_[i] =
          static_cast<unsigned>(kUp ? p.row_of_place[place] : place) * static_cast<unsigned>(p.k);
    }
  }
  __device__ __forceinline__ void ask(int depth, char* slice) const {
    const int at = depth + chunk() * kOfChunk;
    const bool inside = at < p_.k;
    const auto* from = static_cast<const W*>(p_.x) + (inside ? at : 0);
#pragma unroll
    for (int i = 0; i < kTallPlaces / kCopiedPlaces; ++i) {
      if (i >= steps_) break;
      copy_16(slice + at_ + i * (kCopiedPlaces / 8 * kEightRows), from + rows_[i], inside);
    }
  }

 private:
  static constexpr int kOfChunk = 16 / sizeof(W);
  static_assert(kCopyingThreads == kCopiedPlaces * kRowBytes / 16);
  __device__ static int chunk() { return static_cast<int>(threadIdx.x) % 8; }
  __device__ static int row() { return static_cast<int>(threadIdx.x - kMultiplyingThreads) / 8; }

  const ExpertProduct& p_;
  int steps_, at_;
  unsigned rows_[kTallPlaces / kCopiedPlaces];  // where they begin
};

template <class W, bool kUp>
__device__ __forceinline__ void copy_tiles(const HopperExpertsCall& call, TileList<kUp> tiles,
                                           Ring ring) {
  const ExpertProduct& p = call.product;
  const bool asks_weight = threadIdx.x == kMultiplyingThreads;
  const std::uint64_t policy = read_once();  // so that x and the results stay in the second cache
  Tile tile;
  bool is_there = tiles.next(tile);
  int early = 0;  // slices of the weight that were asked for before x was there
  if constexpr (!kUp) {
    for (; is_there && early < kStages && early * kSlice<W> < p.k; ++early) {
      if (asks_weight) {
        ask_weight<W, kUp>(call, tile, early * kSlice<W>, ring.slices + early * kStageBytes,
                           ring.full + early * 8, policy);
      }
    }
    kernels::wait_for_earlier_kernels();
    kernels::let_later_kernels_start();
  }
  for (; is_there; is_there = tiles.next(tile)) {
    const PlaceCopies<W, kUp> places(p, tile);
    for (int depth = 0; depth < p.k; depth += kSlice<W>) {
      ring.wait_until_empty();
      const unsigned full = ring.full + ring.stage * 8;
      if (early > 0) {
        --early;
      } else if (asks_weight) {
        ask_weight<W, kUp>(call, tile, depth, ring.slice(), full, policy);
      }
      places.ask(depth, ring.slice());
      arrive_behind_copies(full);
      ring.advance();
    }
  }
}

// The sums of a lane: of 16 rows of the weight by 8 places, of each of kOperands times 64 rows.
template <int kOperands, int kColumns>
using Sums = float[kOperands][kColumns / 8][4];

template <class W, int kOperands, int kColumns>
__device__ __forceinline__ void multiply(Sums<kOperands, kColumns>& sums, Ring& ring, int depth) {
  const int group = threadIdx.x / 128;
#pragma unroll
  for (int m = 0; m < kOperands; ++m) {
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[m][j][e] = 0;
    }
  }
  int before = 0;
#pragma unroll 1
  for (int begin = 0; begin < depth; begin += kSlice<W>) {
    ring.wait_until_full();
    publish_to_products();  // what other threads have copied
    const unsigned slice = shared_address(ring.slice());
    const std::uint64_t weight =
        operand(slice + group * kOperands * kOperandBytes, 16, kEightRows, Swizzle::k128Bytes);
    const std::uint64_t x =
        operand(slice + 2 * kOperands * kOperandBytes, 16, kEightRows, Swizzle::k128Bytes);
    fence_products();
#pragma unroll
    for (int c = 0; c < kRowBytes / 16; c += 2) {
#pragma unroll
      for (int m = 0; m < kOperands; ++m) {
        multiply_64<kElementsOf<W>, kColumns>(sums[m], weight + m * (kOperandBytes / 16) + c,
                                              x + c);
      }
    }
    commit_products();
    wait_for_products<1>();  // those of the slice before
    if (begin > 0 && threadIdx.x % 32 == 0) arrive(ring.empty + before * 8);
    before = ring.stage;
    ring.advance();
  }
  wait_for_products<0>();
  if (threadIdx.x % 32 == 0) arrive(ring.empty + before * 8);
}

// What x is to be multiplied by in a tile's places, of x in e4m3: asked for before a warp's
// products, and shared by its lanes behind them.
template <class W, bool kUp, int kColumns>
class PlaceScales {
 public:
  __device__ __forceinline__ void ask(const ExpertProduct& p, const Tile& tile) {
    if constexpr (kAreThere) {
#pragma unroll
      for (int i = 0; i < kOfLane; ++i) {
        const int at = tile.begin + min(i * 32 + lane(), tile.count - 1);
        own_[i] = __ldcg(p.x_scales + (kUp ? p.row_of_place[at] : at));
      }
    }
  }
  __device__ __forceinline__ void share(float* of_warp) {
    if constexpr (kAreThere) {
      of_warp_ = of_warp;
      __syncwarp();  // nobody reads those of the tile before any more
#pragma unroll
      for (int i = 0; i < kOfLane; ++i) of_warp[i * 32 + lane()] = own_[i];
      __syncwarp();
    }
  }
  __device__ __forceinline__ float of(int place) const {
    return kAreThere ? of_warp_[place] : 1.0f;
  }

 private:
  static constexpr bool kAreThere = sizeof(W) == 1;
  static constexpr int kOfLane = (kColumns + 31) / 32;
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }

  float own_[kOfLane];
  const float* of_warp_;
};

template <class W, bool kUp, int kOperands, int kColumns>
__device__ __forceinline__ void store(const ExpertProduct& p, const Tile& tile,
                                      const Sums<kOperands, kColumns>& sums,
                                      const PlaceScales<W, kUp, kColumns>& place_scales) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, group = threadIdx.x / 128;
  const int outputs = TileList<kUp>::outputs(p);
  const auto width = static_cast<unsigned>(outputs);
  const std::size_t rows_at = static_cast<std::size_t>(tile.begin) * width;
  const float* scale = p.scales[tile.expert];
#pragma unroll
  for (int m = 0; m < kOperands; ++m) {
    const int first = tile.first + output_at<kUp>((group * kOperands + m) * 4 + warp);
    float scales[2];  // of the upper and the lower 8 of 16 rows
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int n = min(first + lane / 4 + (kUp ? 0 : half * 8), outputs - 1);
      scales[half] = scale == nullptr ? 1.0f : scale[n + (kUp ? half * outputs : 0)];
    }
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
      float s[4];  // of rows 0 and 8, two places each
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        s[e] = sums[m][j][e] * scales[e / 2] * place_scales.of(j * 8 + lane % 4 * 2 + e % 2);
      }
      // A matrix of eight outputs by eight places, of down two of them, turned: each lane then has
      // two neighbours of a place.
      const int place = j * 8 + lane / 4;
#pragma unroll
      for (int half = 0; half < (kUp ? 1 : 2); ++half) {
        const unsigned pair = transposed(kUp ? pair_of(gated(s[0], s[2]), gated(s[1], s[3]))
                                             : pair_of(s[half * 2], s[half * 2 + 1]));
        const int n = first + half * 8 + lane % 4 * 2;
        if (place < tile.count && n < outputs) {
          auto* y = static_cast<__nv_bfloat16*>(p.y) + rows_at;
          *reinterpret_cast<unsigned*>(y + (static_cast<unsigned>(place) * width + n)) = pair;
        }
      }
    }
  }
}

template <class W, bool kUp, int kOperands, int kColumns>
__device__ __forceinline__ void finish(const ExpertProduct& p, const Tile& tile, Ring& ring,
                                       float* of_warp) {
  Sums<kOperands, kColumns> sums;
  PlaceScales<W, kUp, kColumns> place_scales;
  place_scales.ask(p, tile);
  multiply<W, kOperands, kColumns>(sums, ring, p.k);
  place_scales.share(of_warp);
  store<W, kUp, kOperands, kColumns>(p, tile, sums, place_scales);
}

// With no more columns than the tile's places need.
template <class W, bool kUp>
__device__ __forceinline__ void finish(const ExpertProduct& p, const Tile& tile, Ring& ring,
                                       float* of_warp) {
  const int steps = (tile.count + 31) / 32;
  if (tile.is_wide) {
    switch (steps) {
      case 1:
        return finish<W, kUp, 2, 32>(p, tile, ring, of_warp);
      case 2:
        return finish<W, kUp, 2, 64>(p, tile, ring, of_warp);
      case 3:
        return finish<W, kUp, 2, 96>(p, tile, ring, of_warp);
      default:
        return finish<W, kUp, 2, 128>(p, tile, ring, of_warp);
    }
  }
  switch (steps) {
    case 4:  // of two pieces of 257 places, one has 128
    case 5:
      return finish<W, kUp, 1, 160>(p, tile, ring, of_warp);
    case 6:
      return finish<W, kUp, 1, 192>(p, tile, ring, of_warp);
    case 7:
      return finish<W, kUp, 1, 224>(p, tile, ring, of_warp);
    default:
      return finish<W, kUp, 1, 256>(p, tile, ring, of_warp);
  }
}

// Of down, the weight's first slices come while the kernel in front still runs: that is up, which
// waited for the places before it let this one start.
template <class W, bool kUp>
__global__ void __launch_bounds__(kThreads, 1)
    multiply_experts(const __grid_constant__ HopperExpertsCall call) {
  const ExpertProduct& p = call.product;
  extern __shared__ char memory[];
  __shared__ std::uint64_t full[kStages], empty[kStages];
  __shared__ int first_tiles[HopperExperts::kMostExperts + 1];
  __shared__ float place_scales[kMultiplyingThreads / 32][sizeof(W) == 1 ? kTallPlaces : 1];
  if constexpr (kUp) {
    kernels::wait_for_earlier_kernels();
    kernels::let_later_kernels_start();
  }
  if (threadIdx.x < 32) TileList<kUp>::fill(p, first_tiles);
  if (threadIdx.x == 32) {
    for (int i = 0; i < kStages; ++i) {
      make_barrier(shared_address(full + i), kCopyingThreads + 1);
      make_barrier(shared_address(empty + i), kMultiplyingThreads / 32);
    }
    publish_barriers();
  }
  __syncthreads();
  const unsigned begin = shared_address(memory);
  Ring ring{memory + (kEightRows - begin % kEightRows) % kEightRows, shared_address(full),
            shared_address(empty)};
  TileList<kUp> tiles(p, first_tiles);
  if (threadIdx.x >= kMultiplyingThreads) {
    keep_registers<kCopyingRegisters>();
    copy_tiles<W, kUp>(call, tiles, ring);
  } else {
    take_registers<kMultiplyingRegisters>();
    float* of_warp = place_scales[threadIdx.x / 32];
    if constexpr (!kUp) kernels::wait_for_earlier_kernels();
    for (Tile tile; tiles.next(tile);) finish<W, kUp>(p, tile, ring, of_warp);
  }
}

template <class W>
cudaError_t run(const HopperExpertsCall& call, bool up, KernelStream on) {
  const dim3 grid(static_cast<unsigned>(device_room().multiprocessors));
  return launch_behind(up ? multiply_experts<W, true> : multiply_experts<W, false>, grid, kThreads,
                       on, call, kSharedBytes);
}

// A weight as its copies see it, five dimensions of which the first is the depth: a box is 128 rows
// by 128 bytes. Of up, rows are (8 neighbours, of h or of g, which 16 outputs, which 8 of them),
// and a box has 64 outputs, in the order of output_at(); of down they are the fifth.
CUresult encode_weight(void* encode, const ExpertProduct& p, int expert, bool up,
                       CUtensorMap& map) {
  const bool is_8 = p.weight_type == WeightType::kFloat8;
  const cuuint64_t depth = p.k, row = depth * (is_8 ? 1 : 2), n = p.n;
  const cuuint64_t up_extents[5] = {depth, 8, 2, n / 32, 2};
  const cuuint64_t up_strides[4] = {row, n / 2 * row, 16 * row,
                                    8 * row};  // bytes, of the outer four
  const cuuint32_t up_box[5] = {static_cast<cuuint32_t>(is_8 ? 128 : 64), 8, 2, 4, 2};
  const cuuint64_t down_extents[5] = {depth, 1, 1, 1, n};
  const cuuint64_t down_strides[4] = {row, row, row, row};
  const cuuint32_t down_box[5] = {up_box[0], 1, 1, 1, kBoxRows};
  const cuuint32_t steps[5] = {1, 1, 1, 1, 1};
  const auto function = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(encode);
  return function(&map, is_8 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 5,
                  const_cast<void*>(p.weights[expert]), up ? up_extents : down_extents,
                  up ? up_strides : down_strides, up ? up_box : down_box, steps,
                  CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

}  // namespace

std::unique_ptr<const HopperExperts> HopperExperts::create() {
  void* encode = tensor_map_encoder(reinterpret_cast<const void*>(multiply_experts<Float8, true>));
  if (encode == nullptr) return nullptr;
  return std::unique_ptr<const HopperExperts>(new HopperExperts(encode));
}

cudaError_t HopperExperts::multiply(const ExpertProduct& args, bool up, KernelStream stream) const {
  HopperExpertsCall call{};
  call.product = args;
  for (int e = 0; e < args.num_experts; ++e) {
    if (encode_weight(encode_, args, e, up, call.weights[e]) != CUDA_SUCCESS) {
      return cudaErrorInvalidValue;
    }
  }
  return args.weight_type == WeightType::kFloat8 ? run<Float8>(call, up, stream)
                                                 : run<__nv_bfloat16>(call, up, stream);
}

}  // namespace fovea::cuda
