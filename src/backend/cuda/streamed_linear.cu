#include "backend/cuda/native_kernels.h"
#include "backend/cuda/weight_stream.h"
#include "kernels/common.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

// Where the depth is short, blocks are small and many: three share a multiprocessor, and the next
// kernel's take the places of those that are done. Where it is long there are few blocks, which are
// large.
template <bool kDeep>
struct BlockShape {
  static constexpr int kWarps = kDeep ? 16 : 8;
  static constexpr int kAheadBytes = (kDeep ? 96 : 64) << 10;
  static constexpr int kOfMultiprocessor = kDeep ? 2 : 3;
};
constexpr int kLeastDeep = 4096;

// What one block multiplies: 16 rows of the weight.
template <class Stream, class W, int kGroups>
class Items {
 public:
  static constexpr bool kScalesParts = false;

  __device__ Items(const StreamedLinear& p, unsigned tile)
      : p_(p), first_row_(static_cast<int>(tile) * Stream::kRows) {}
  __device__ __forceinline__ void weight_rows(int, int, const W*& upper, const W*& lower) const {
    const auto* weight = static_cast<const W*>(p_.weight);
    const int n = first_row_ + lane_row();
    upper = weight + min(n, p_.n - 1) * static_cast<std::size_t>(p_.k);
    lower = weight + min(n + 8, p_.n - 1) * static_cast<std::size_t>(p_.k);
  }
  __device__ __forceinline__ void x_rows(int, int, const __nv_bfloat16* (&x)[kGroups]) const {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int t = g * 8 + lane_row();
      x[g] = t < p_.m ? static_cast<const __nv_bfloat16*>(p_.x) + t * static_cast<std::size_t>(p_.k)
                      : nullptr;
    }
  }
  __device__ __forceinline__ void finish(int, const typename Stream::Sums& sums) const {
    for (int i = threadIdx.x; i < Stream::kRows * p_.m; i += Stream::kThreads) {
      const int r = i % Stream::kRows, t = i / Stream::kRows, n = first_row_ + r;
      if (n >= p_.n) continue;
      float value = sums.total(r, t);
      if (p_.scale != nullptr) value *= p_.scale[n];
      if (p_.bias != nullptr) value += p_.bias[n];
      value = kernels::activated(value, p_.activation);
      const std::size_t at = static_cast<std::size_t>(t) * p_.n + n;
      if (p_.add != nullptr) {
        const std::size_t add_at = static_cast<std::size_t>(t % p_.add_rows) * p_.n + n;
        value += p_.add_is_f32
                     ? static_cast<const float*>(p_.add)[add_at]
                     : __bfloat162float(static_cast<const __nv_bfloat16*>(p_.add)[add_at]);
      }
      if (p_.y_is_f32) {
        static_cast<float*>(p_.y)[at] = value;
      } else {
        static_cast<__nv_bfloat16*>(p_.y)[at] = __float2bfloat16_rn(value);
      }
    }
  }

 private:
  const StreamedLinear& p_;
  int first_row_;
};

template <class W, int kGroups, class Shape>  // groups of 8 rows of x
__device__ __forceinline__ void stream_tile(const StreamedLinear& p, unsigned tile, char* shared) {
  using Stream = WeightStream<W, Shape::kWarps, Shape::kAheadBytes, kGroups>;
  Items<Stream, W, kGroups> items(p, tile);
  Stream stream(1, 1, p.k, *reinterpret_cast<typename Stream::Shared*>(shared));
  stream.begin(items);
  kernels::wait_for_earlier_kernels();
  kernels::let_later_kernels_start();
  stream.run(items);
}

template <class W, int kGroups, class Shape>
__global__ void __launch_bounds__(Shape::kWarps * 32, Shape::kOfMultiprocessor)
    streamed(StreamedLinear p) {
  extern __shared__ __align__(16) char shared[];
  stream_tile<W, kGroups, Shape>(p, blockIdx.x, shared);
}

// The tiles of one product behind those of another.
struct Pair {
  StreamedLinear first, second;
  unsigned first_tiles;
};
template <class W, class W2, int kGroups, class Shape>
__global__ void __launch_bounds__(Shape::kWarps * 32, Shape::kOfMultiprocessor)
    streamed_pair(Pair p) {
  extern __shared__ __align__(16) char shared[];
  if (blockIdx.x < p.first_tiles) {
    stream_tile<W, kGroups, Shape>(p.first, blockIdx.x, shared);
  } else {
    stream_tile<W2, kGroups, Shape>(p.second, blockIdx.x - p.first_tiles, shared);
  }
}

template <class W, class W2, int kGroups>
cudaError_t launch_pair(const StreamedLinear& first, const StreamedLinear& second,
                        KernelStream stream) {
  using Shape = BlockShape<false>;
  using Stream = WeightStream<W, Shape::kWarps, Shape::kAheadBytes, kGroups>;
  const auto tiles = [](int n) {
    return static_cast<unsigned>((n + Stream::kRows - 1) / Stream::kRows);
  };
  const Pair pair{first, second, tiles(first.n)};
  return launch_behind(streamed_pair<W, W2, kGroups, Shape>, dim3(tiles(first.n) + tiles(second.n)),
                       Stream::kThreads, stream, pair,
                       static_cast<int>(sizeof(typename Stream::Shared)));
}

template <class W, class W2>
cudaError_t launch_pair(const StreamedLinear& first, const StreamedLinear& second,
                        KernelStream stream) {
  return first.m <= 8 ? launch_pair<W, W2, 1>(first, second, stream)
                      : launch_pair<W, W2, 2>(first, second, stream);
}

template <class W, int kGroups, class Shape>
cudaError_t launch(const StreamedLinear& args, KernelStream stream) {
  using Stream = WeightStream<W, Shape::kWarps, Shape::kAheadBytes, kGroups>;
  const int tiles = (args.n + Stream::kRows - 1) / Stream::kRows;
  return launch_behind(streamed<W, kGroups, Shape>, dim3(static_cast<unsigned>(tiles)),
                       Stream::kThreads, stream, args,
                       static_cast<int>(sizeof(typename Stream::Shared)));
}

template <class W, int kGroups>
cudaError_t launch(const StreamedLinear& args, KernelStream stream) {
  using Deep = BlockShape<true>;
  constexpr auto kDeepBytes = static_cast<int>(
      sizeof(typename WeightStream<W, Deep::kWarps, Deep::kAheadBytes, kGroups>::Shared));
  const bool is_deep = args.k >= kLeastDeep && device_room().shared_bytes >= kDeepBytes;
  return is_deep ? launch<W, kGroups, Deep>(args, stream)
                 : launch<W, kGroups, BlockShape<false>>(args, stream);
}

__global__ void __launch_bounds__(256) round_all(const float* from, __nv_bfloat16* to, int count) {
  const int i = static_cast<int>(blockIdx.x * 256 + threadIdx.x);
  if (i < count) to[i] = __float2bfloat16_rn(from[i]);
}

}  // namespace

cudaError_t round_to_bf16(const float* from, void* to, int count, KernelStream stream) {
  round_all<<<static_cast<unsigned>((count + 255) / 256), 256, 0, stream.handle>>>(
      from, static_cast<__nv_bfloat16*>(to), count);
  return cudaGetLastError();
}

cudaError_t streamed_linear(const StreamedLinear& args, KernelStream stream) {
  const bool is_small = args.m <= 8;
  if (args.weight_is_f8) {
    return is_small ? launch<Float8, 1>(args, stream) : launch<Float8, 2>(args, stream);
  }
  return is_small ? launch<__nv_bfloat16, 1>(args, stream) : launch<__nv_bfloat16, 2>(args, stream);
}

cudaError_t streamed_pair(const StreamedLinear& first, const StreamedLinear& second,
                          KernelStream stream) {
  if (first.weight_is_f8) {
    return second.weight_is_f8 ? launch_pair<Float8, Float8>(first, second, stream)
                               : launch_pair<Float8, __nv_bfloat16>(first, second, stream);
  }
  return second.weight_is_f8 ? launch_pair<__nv_bfloat16, Float8>(first, second, stream)
                             : launch_pair<__nv_bfloat16, __nv_bfloat16>(first, second, stream);
}

}  // namespace fovea::cuda
