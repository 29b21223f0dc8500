#include <algorithm>
#include <type_traits>

#include "backend/cuda/device_room.h"
#include "backend/cuda/native_kernels.h"
#include "backend/cuda/weight_stream.h"
#include "kernels/common.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

constexpr int kTileRows = 16;
__host__ __device__ constexpr int tiles_of(int n) { return (n + kTileRows - 1) / kTileRows; }

// Four blocks share a multiprocessor: few warps have to meet where an item ends, and of the others
// some are always at work. Of narrow weights, which take more instructions than bytes, pieces are
// longer and less is under way. Where each warp keeps what it meets of x (of a depth of up to
// 2,048), fewer blocks find registers: that pays for more than 8 rows, and for 4 bits.
template <class W, int kGroups>
struct Shape {
  static constexpr bool kIsBf16 = std::is_same_v<W, __nv_bfloat16>;
  static constexpr bool kKeepsX = std::is_same_v<W, Int4Tile> || (!kIsBf16 && kGroups > 1);
  static constexpr int kAheadBytes = (kIsBf16 ? 48 : kKeepsX ? 64 : 32) << 10;
  static constexpr int kSpans = kIsBf16 ? 1 : kKeepsX ? 4 : 2;
  static constexpr int kOfMultiprocessor = !kKeepsX ? 4 : kGroups == 1 ? 3 : 2;
  // Whether scales and biases are asked for before they are wanted. Of bf16 that gains nothing; of
  // more rows, or of 4 bits, there are no registers left for it.
  static constexpr bool kReadies = std::is_same_v<W, Float8> && kGroups == 1;
};
// Every num_blocks-th 16 rows of the weights of both products, from the block's own on.
template <class Stream, class W, int kGroups>
class Items {
 public:
  static constexpr bool kScalesParts = false;
  static constexpr bool kReadsEarly = false;
  static constexpr bool kPartsDiffer = false;
  static constexpr bool kSharesX = true;

  __device__ Items(const StreamedLinear& first, const StreamedLinear& second, int block,
                   int num_blocks)
      : first_(first), second_(second), block_(block), num_blocks_(num_blocks) {}
  __device__ int count() const {
    const int tiles = tiles_of(first_.n) + tiles_of(second_.n);
    return (tiles - block_ + num_blocks_ - 1) / num_blocks_;
  }
  __device__ __forceinline__ void weight_rows(int item, int, int, const W*& upper,
                                              const W*& lower) const {
    const StreamedLinear& p = product(item);
    const int n = first_row(item) + lane_row();
    upper = weight_row<W>(p.weight, n, p.n, p.k);
    lower = weight_row<W>(p.weight, n + 8, p.n, p.k);
  }
  __device__ __forceinline__ void x_rows(int, int, const __nv_bfloat16* (&x)[kGroups]) const {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int t = g * 8 + lane_row();
      x[g] = t < first_.m ? static_cast<const __nv_bfloat16*>(first_.x) +
                                t * static_cast<std::size_t>(first_.k)
                          : nullptr;
    }
  }
  // A thread finishes the same row of an item for some rows of x.
  static_assert(Stream::kThreads % Stream::kRows == 0);
  static constexpr bool kReadies = Shape<W, kGroups>::kReadies;
  struct Ready {
    float scale, bias;
  };
  __device__ __forceinline__ Ready ready(int item) const {
    if constexpr (!kReadies) return {};
    const StreamedLinear& p = product(item);
    const int n = min(first_row(item) + static_cast<int>(threadIdx.x) % Stream::kRows, p.n - 1);
    return {p.scale == nullptr ? 1 : p.scale[n], p.bias == nullptr ? 0 : p.bias[n]};
  }
  __device__ __forceinline__ void finish(int item, const typename Stream::Sums& sums,
                                         const Ready& ready) const {
    const StreamedLinear& p = product(item);
    for (int i = threadIdx.x; i < Stream::kRows * p.m; i += Stream::kThreads) {
      const int r = i % Stream::kRows, t = i / Stream::kRows, n = first_row(item) + r;
      if (n >= p.n) continue;
      float value = sums.total(r, t);
      if (p.scale != nullptr) value *= kReadies ? ready.scale : p.scale[n];
      if (p.bias != nullptr) value += kReadies ? ready.bias : p.bias[n];
      value = kernels::activated(value, p.activation);
      const std::size_t at = static_cast<std::size_t>(t) * p.n + n;
      if (p.add != nullptr) {
        const std::size_t add_at = static_cast<std::size_t>(t % p.add_rows) * p.n + n;
        value += p.add_is_f32 ? static_cast<const float*>(p.add)[add_at]
                              : __bfloat162float(static_cast<const __nv_bfloat16*>(p.add)[add_at]);
      }
      put(p.y, p.y_is_f32, at, value);
      if (p.activated == nullptr) continue;
      if (!p.y_is_f32) value = __bfloat162float(__float2bfloat16_rn(value));
      put(p.activated, p.y_is_f32, at, kernels::activated(value, p.activated_by));
    }
  }

 private:
  __device__ static __forceinline__ void put(void* y, bool is_f32, std::size_t at, float value) {
    if (is_f32) {
      static_cast<float*>(y)[at] = value;
    } else {
      static_cast<__nv_bfloat16*>(y)[at] = __float2bfloat16_rn(value);
    }
  }
  __device__ int tile(int item) const { return block_ + item * num_blocks_; }
  __device__ const StreamedLinear& product(int item) const {
    return tile(item) < tiles_of(first_.n) ? first_ : second_;
  }
  __device__ int first_row(int item) const {
    const int before = tile(item) < tiles_of(first_.n) ? 0 : tiles_of(first_.n);
    return (tile(item) - before) * kTileRows;
  }

  const StreamedLinear& first_;
  const StreamedLinear& second_;
  int block_, num_blocks_;
};

constexpr int kWarps = 8, kThreads = kWarps * 32;
template <class W, int kGroups>
using StreamOf =
    WeightStream<W, kWarps, Shape<W, kGroups>::kAheadBytes, kGroups, Shape<W, kGroups>::kSpans>;
template <class W, class W2, int kGroups>
constexpr int kOfMultiprocessor = std::min(Shape<W, kGroups>::kOfMultiprocessor,
                                           Shape<W2, kGroups>::kOfMultiprocessor);

// What one of num_blocks blocks does of two products; groups of 8 rows of x. It stays for all its
// items, so that weights are under way while one of them ends.
template <class W, int kGroups>
__device__ __forceinline__ void multiply(const StreamedLinear& first, const StreamedLinear& second,
                                         int block, int num_blocks, char* shared) {
  using Stream = StreamOf<W, kGroups>;
  Items<Stream, W, kGroups> items(first, second, block, num_blocks);
  Stream stream(items.count(), 1, first.k, *reinterpret_cast<typename Stream::Shared*>(shared));
  stream.begin(items);
  kernels::wait_for_earlier_kernels();
  kernels::let_later_kernels_start();
  stream.run(items);
}

template <class W, int kGroups>
__global__ void __launch_bounds__(kThreads, kOfMultiprocessor<W, W, kGroups>)
    streamed(StreamedProducts p) {
  extern __shared__ __align__(16) char shared[];
  multiply<W, kGroups>(p.first, p.second, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x),
                       shared);
}

// Of weights of two types each has blocks of its own, by its share of the bytes.
template <class W, class W2, int kGroups>
__global__ void __launch_bounds__(kThreads, kOfMultiprocessor<W, W2, kGroups>)
    streamed_apart(StreamedProducts p) {
  extern __shared__ __align__(16) char shared[];
  const int block = static_cast<int>(blockIdx.x), num_blocks = static_cast<int>(gridDim.x);
  StreamedLinear none = p.second;
  none.n = 0;
  if (block < p.first_blocks) {
    multiply<W, kGroups>(p.first, none, block, p.first_blocks, shared);
  } else {
    multiply<W2, kGroups>(p.second, none, block - p.first_blocks, num_blocks - p.first_blocks,
                          shared);
  }
}

template <class W, class W2, int kGroups>
cudaError_t launch(const StreamedProducts& p, KernelStream stream) {
  using Shared = typename StreamOf<W, kGroups>::Shared;
  using Shared2 = typename StreamOf<W2, kGroups>::Shared;
  constexpr int kBytes = static_cast<int>(std::max(sizeof(Shared), sizeof(Shared2)));
  const int first_tiles = tiles_of(p.first.n), second_tiles = tiles_of(p.second.n);
  const int blocks = min(first_tiles + second_tiles,
                         device_room().multiprocessors * kOfMultiprocessor<W, W2, kGroups>);
  const dim3 grid(static_cast<unsigned>(blocks));
  if constexpr (std::is_same_v<W, W2>) {
    return launch_behind(streamed<W, kGroups>, grid, kThreads, stream, p, kBytes);
  } else {
    const int first_bytes = first_tiles * StreamedType<W>::kLaneBytes;
    const int all_bytes = first_bytes + second_tiles * StreamedType<W2>::kLaneBytes;
    StreamedProducts apart = p;
    // Where there are as many blocks as tiles, none takes two.
    apart.first_blocks = first_tiles + second_tiles == blocks
                             ? first_tiles
                             : min(max(blocks * first_bytes / all_bytes, 1), blocks - 1);
    return launch_behind(streamed_apart<W, W2, kGroups>, grid, kThreads, stream, apart, kBytes);
  }
}

template <class W, class W2>
cudaError_t launch(const StreamedProducts& p, KernelStream stream) {
  return p.first.m <= 8 ? launch<W, W2, 1>(p, stream) : launch<W, W2, 2>(p, stream);
}

}  // namespace

cudaError_t streamed_products(const StreamedProducts& args, KernelStream stream) {
  return with_weight_type(args.first.weight_type, [&](auto first) {
    return with_weight_type(args.second.weight_type, [&](auto second) {
      constexpr WeightType kFirst = decltype(first)::kType, kSecond = decltype(second)::kType;
      if constexpr (can_stream_together(kFirst, kSecond)) {
        return launch<typename decltype(first)::Type, typename decltype(second)::Type>(args,
                                                                                       stream);
      } else {
        return cudaErrorInvalidValue;
      }
    });
  });
}

}  // namespace fovea::cuda
