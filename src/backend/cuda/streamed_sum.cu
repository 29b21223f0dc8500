#include <algorithm>
#include <type_traits>

#include "backend/cuda/device_room.h"
#include "backend/cuda/native_kernels.h"
#include "backend/cuda/stream_shape.h"
#include "backend/cuda/weight_stream.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

// Some tiles of 16 rows of both weights, one behind the other; of a cluster's blocks each finishes
// one of them.
template <class Stream, class W, int kBlocks>
class SumItems {
 public:
  static constexpr bool kScalesParts = kHasRowScale<W>;
  static constexpr bool kReadsEarly = true;
  static constexpr bool kPartsDiffer = true;

  __device__ explicit SumItems(const StreamedSum& p)
      : p_(p),
        first_row_(static_cast<int>(blockIdx.x) * kBlocks * Stream::kRows),
        own_row_(first_row_ + static_cast<int>(cluster_rank()) * Stream::kRows) {
#pragma unroll
    for (int tile = 0; tile < kBlocks; ++tile) {
      scales_[0][tile] = scale_of(p.first, tile);
      scales_[1][tile] = scale_of(p.second, tile);
    }
  }
  __device__ int depth(int part) const { return term_of(part).k; }
  __device__ __forceinline__ void weight_rows(int, int part, int tile, const W*& upper,
                                              const W*& lower) const {
    const StreamedTerm& term = term_of(part);
    const int n = lane_row_of(tile);
    upper = weight_row<W>(term.weight, n, p_.n, term.k);
    lower = weight_row<W>(term.weight, n + 8, p_.n, term.k);
  }
  __device__ int num_rows() const { return p_.m; }
  __device__ void before_x(int part) const {
    if (part != (p_.first_is_early ? 1 : 0)) return;
    kernels::wait_for_earlier_kernels();
    kernels::let_later_kernels_start();
  }
  __device__ const __nv_bfloat16* x_row(int part, int row) const {
    const StreamedTerm& term = term_of(part);
    return static_cast<const __nv_bfloat16*>(term.x) + row * static_cast<std::size_t>(term.k);
  }
  __device__ __forceinline__ float2 part_scale(int, int part, int tile) const {
    return part == 0 ? scales_[0][tile] : scales_[1][tile];
  }
  // A thread finishes the same row for some rows of x.
  static_assert(Stream::kThreads % Stream::kRows == 0);
  struct Ready {
    float first_bias, second_bias;
  };
  __device__ __forceinline__ Ready ready(int) const {
    const int n = min(own_row_ + static_cast<int>(threadIdx.x) % Stream::kRows, p_.n - 1);
    return {p_.first.bias == nullptr ? 0 : p_.first.bias[n],
            p_.second.bias == nullptr ? 0 : p_.second.bias[n]};
  }
  __device__ __forceinline__ void finish(int, const typename Stream::Sums& sums,
                                         const Ready& ready) const {
    kernels::wait_for_earlier_kernels();  // of a short depth some warps had nothing to wait for
    auto* y = static_cast<__nv_bfloat16*>(p_.y);
    for (int i = threadIdx.x; i < Stream::kRows * p_.m; i += Stream::kThreads) {
      const int r = i % Stream::kRows, t = i / Stream::kRows, n = own_row_ + r;
      if (n >= p_.n) continue;
      float value = sums.total(r, t);
      value += ready.first_bias;
      value += ready.second_bias;
      const std::size_t at = static_cast<std::size_t>(t) * p_.n + n;
      y[at] = __float2bfloat16_rn(__bfloat162float(y[at]) + value);
    }
  }

 private:
  __device__ const StreamedTerm& term_of(int part) const {
    return part == 0 ? p_.first : p_.second;
  }

  __device__ int lane_row_of(int tile) const {
    return first_row_ + tile * Stream::kRows + lane_row();
  }
  // Of this lane's two rows; asked for before the weights.
  __device__ float2 scale_of(const StreamedTerm& term, int tile) const {
    if (!kScalesParts || term.scale == nullptr) return {1, 1};
    const int n = lane_row_of(tile);
    return {term.scale[min(n, p_.n - 1)], term.scale[min(n + 8, p_.n - 1)]};
  }

  const StreamedSum& p_;
  int first_row_, own_row_;  // of all tiles, and of what this block finishes
  float2 scales_[2][kBlocks];
};

// Of up to 8 rows, narrow weights come in longer pieces, and of bf16 more is under way. More rows
// by narrow weights come in rings of two pieces; bf16 gains less by that than it loses of the
// shared memory in which the next kernel's blocks begin.
template <class W, int kGroups>
constexpr bool kIsRinged = !std::is_same_v<W, __nv_bfloat16> && kGroups > 1;
template <class W, int kGroups, int kBlocks>
struct SumShape {
  static constexpr bool kIsBf16 = std::is_same_v<W, __nv_bfloat16>;
  static constexpr int kSpans = kIsBf16 || kIsRinged<W, kGroups> ? 1 : 2;
  static constexpr int kRingBytes =
      std::max(2 * StreamShape::kThreads * kBlocks * StreamedType<W>::kLaneBytes, 48 << 10);
  static constexpr int kWindowBytes = kIsBf16 && kGroups == 1 ? 96 << 10 : StreamShape::kAheadBytes;
  static constexpr int kAheadBytes = kIsRinged<W, kGroups> ? kRingBytes : kWindowBytes;
  using Stream = WeightStream<W, StreamShape::kWarps, kAheadBytes, kGroups, kSpans,
                              kIsRinged<W, kGroups> ? 0 : 16 / kSpans, kBlocks>;
  using Shared = std::conditional_t<kIsRinged<W, kGroups>, typename Stream::RingedShared,
                                    typename Stream::WindowedShared>;
  static constexpr int kSharedBytes = static_cast<int>(sizeof(Shared));
};

// There are few blocks, one for a multiprocessor: the next kernel's find a place beside them.
template <class W, int kGroups, int kBlocks>
__global__ void __launch_bounds__(StreamShape::kThreads, 1) add(StreamedSum p) {
  using Shape = SumShape<W, kGroups, kBlocks>;
  using Stream = typename Shape::Stream;
  extern __shared__ __align__(16) char shared[];
  if constexpr (kBlocks > 1) cluster_arrive();
  SumItems<Stream, W, kBlocks> items(p);
  auto& of_block = *reinterpret_cast<typename Shape::Shared*>(shared);
  Stream stream(1, 2, 0, of_block);
  stream.begin(items);
  if constexpr (kIsRinged<W, kGroups>) {
    stream.run_in_rings(items, of_block);
  } else {
    stream.run_in_windows(items, of_block);
  }
}

// run(shape) with what so many rows take. Where there are clusters, two blocks share rows that come
// in rings.
template <class W, class Run>
cudaError_t with_shape(int rows, bool has_clusters, const Run& run) {
  if (rows <= 8) return run(SumShape<W, 1, 1>{});
  if constexpr (kIsRinged<W, 2>) {
    if (has_clusters) return run(SumShape<W, 2, 2>{});
  }
  return run(SumShape<W, 2, 1>{});
}

template <class W, int kGroups, int kBlocks>
cudaError_t launch(SumShape<W, kGroups, kBlocks>, const StreamedSum& args, KernelStream stream) {
  using Shape = SumShape<W, kGroups, kBlocks>;
  constexpr int kRows = kBlocks * Shape::Stream::kRows;
  const dim3 grid(static_cast<unsigned>((args.n + kRows - 1) / kRows), kBlocks);
  return launch_behind(add<W, kGroups, kBlocks>, grid, StreamShape::kThreads, stream, args,
                       Shape::kSharedBytes, kBlocks);
}

}  // namespace

bool has_room_for_sum(WeightType type, int rows, bool has_clusters) {
  int bytes = 0;
  with_weight_type(type, [&](auto tag) {
    return with_shape<typename decltype(tag)::Type>(rows, has_clusters, [&](auto shape) {
      bytes = shape.kSharedBytes;
      return cudaSuccess;
    });
  });
  return bytes <= device_room().shared_bytes;
}

cudaError_t streamed_sum(const StreamedSum& args, KernelStream stream) {
  return with_weight_type(args.weight_type, [&](auto tag) {
    return with_shape<typename decltype(tag)::Type>(
        args.m, stream.starts_early, [&](auto shape) { return launch(shape, args, stream); });
  });
}

}  // namespace fovea::cuda
