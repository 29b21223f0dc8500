#include <type_traits>

#include "backend/cuda/native_kernels.h"
#include "backend/cuda/stream_shape.h"
#include "backend/cuda/weight_stream.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

// 16 rows of both weights, one behind the other.
template <class Stream, class W>
class SumItems {
 public:
  static constexpr bool kScalesParts = kHasRowScale<W>;
  static constexpr bool kReadsEarly = true;
  static constexpr bool kWindows = true;

  __device__ explicit SumItems(const StreamedSum& p)
      : p_(p),
        first_row_(static_cast<int>(blockIdx.x) * Stream::kRows),
        scales_{scale_of(p.first), scale_of(p.second)} {}
  __device__ int depth(int part) const { return term_of(part).k; }
  __device__ __forceinline__ void weight_rows(int, int part, const W*& upper,
                                              const W*& lower) const {
    const StreamedTerm& term = term_of(part);
    const int n = first_row_ + lane_row();
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
  __device__ __forceinline__ float2 part_scale(int, int part) const {
    return part == 0 ? scales_[0] : scales_[1];
  }
  // A thread finishes the same row of the item for some rows of x.
  static_assert(Stream::kThreads % Stream::kRows == 0);
  struct Ready {
    float first_bias, second_bias;
  };
  __device__ __forceinline__ Ready ready(int) const {
    const int n = min(first_row_ + static_cast<int>(threadIdx.x) % Stream::kRows, p_.n - 1);
    return {p_.first.bias == nullptr ? 0 : p_.first.bias[n],
            p_.second.bias == nullptr ? 0 : p_.second.bias[n]};
  }
  __device__ __forceinline__ void finish(int, const typename Stream::Sums& sums,
                                         const Ready& ready) const {
    kernels::wait_for_earlier_kernels();  // of a short depth some warps had nothing to wait for
    auto* y = static_cast<__nv_bfloat16*>(p_.y);
    for (int i = threadIdx.x; i < Stream::kRows * p_.m; i += Stream::kThreads) {
      const int r = i % Stream::kRows, t = i / Stream::kRows, n = first_row_ + r;
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

  // Of this lane's two rows; asked for before the weights.
  __device__ float2 scale_of(const StreamedTerm& term) const {
    if (!kScalesParts || term.scale == nullptr) return {1, 1};
    const int n = first_row_ + lane_row();
    return {term.scale[min(n, p_.n - 1)], term.scale[min(n + 8, p_.n - 1)]};
  }

  const StreamedSum& p_;
  int first_row_;
  float2 scales_[2];
};

// Of up to 8 rows, narrow weights come in longer pieces; of bf16 more is under way.
template <class W, int kGroups>
struct SumShape {
  static constexpr bool kIsBf16 = std::is_same_v<W, __nv_bfloat16>;
  static constexpr int kSpans = kIsBf16 || kGroups > 1 ? 1 : 2, kWindow = 16 / kSpans;
  static constexpr int kAheadBytes = kIsBf16 && kGroups == 1 ? 96 << 10 : StreamShape::kAheadBytes;
};
template <class W, int kGroups>
using SumStream = WeightStream<W, StreamShape::kWarps, SumShape<W, kGroups>::kAheadBytes, kGroups,
                               SumShape<W, kGroups>::kSpans, SumShape<W, kGroups>::kWindow>;

// There are few blocks, one for a multiprocessor: the next kernel's find a place beside them.
template <class W, int kGroups>
__global__ void __launch_bounds__(StreamShape::kThreads, 1) add(StreamedSum p) {
  using Stream = SumStream<W, kGroups>;
  extern __shared__ __align__(16) char shared[];
  SumItems<Stream, W> items(p);
  auto& of_block = *reinterpret_cast<typename Stream::WindowedShared*>(shared);
  Stream stream(1, 2, 0, of_block);
  stream.begin(items);
  stream.run_in_windows(items, of_block);
}

template <class W, int kGroups>
cudaError_t launch(const StreamedSum& args, KernelStream stream) {
  using Stream = SumStream<W, kGroups>;
  const int tiles = (args.n + Stream::kRows - 1) / Stream::kRows;
  return launch_behind(add<W, kGroups>, dim3(static_cast<unsigned>(tiles)), Stream::kThreads,
                       stream, args, static_cast<int>(sizeof(typename Stream::WindowedShared)));
}

template <class W>
cudaError_t launch(const StreamedSum& args, KernelStream stream) {
  return args.m <= 8 ? launch<W, 1>(args, stream) : launch<W, 2>(args, stream);
}

}  // namespace

cudaError_t streamed_sum(const StreamedSum& args, KernelStream stream) {
  return with_weight_type(args.weight_type, [&](auto tag) {
    return launch<typename decltype(tag)::Type>(args, stream);
  });
}

}  // namespace fovea::cuda
