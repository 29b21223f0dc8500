#include <numeric>

#include "backend/cuda/native_kernels.h"
#include "backend/cuda/weight_stream.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

// 16 rows of both weights, one behind the other in parts of equal depth.
template <class Stream, class W, int kGroups>
class SumItems {
 public:
  static constexpr bool kScalesParts = kHasRowScale<W>;
  static constexpr bool kReadsEarly = true;

  __device__ explicit SumItems(const StreamedSum& p)
      : p_(p), first_row_(static_cast<int>(blockIdx.x) * Stream::kRows) {}
  __device__ __forceinline__ void weight_rows(int, int part, const W*& upper,
                                              const W*& lower) const {
    const StreamedTerm& term = term_of(part);
    const int n = first_row_ + lane_row();
    upper = weight_row<W>(term.weight, n, p_.n, term.k, depth_of(part));
    lower = weight_row<W>(term.weight, n + 8, p_.n, term.k, depth_of(part));
  }
  __device__ __forceinline__ void x_rows(int, int part, const __nv_bfloat16* (&x)[kGroups]) const {
    if (part == (p_.first_is_early ? first_parts() : 0)) {
      kernels::wait_for_earlier_kernels();
      kernels::let_later_kernels_start();
    }
    const StreamedTerm& term = term_of(part);
    const auto* rows = static_cast<const __nv_bfloat16*>(term.x) + depth_of(part);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int t = g * 8 + lane_row();
      x[g] = t < p_.m ? rows + t * static_cast<std::size_t>(term.k) : nullptr;
    }
  }
  __device__ __forceinline__ float2 part_scale(int, int part) const {
    const float* scale = term_of(part).scale;
    if (scale == nullptr) return {1, 1};
    const int n = first_row_ + lane_row();
    return {scale[min(n, p_.n - 1)], scale[min(n + 8, p_.n - 1)]};
  }
  __device__ __forceinline__ void finish(int, const typename Stream::Sums& sums) const {
    kernels::wait_for_earlier_kernels();  // of a short depth some warps had nothing to wait for
    auto* y = static_cast<__nv_bfloat16*>(p_.y);
    for (int i = threadIdx.x; i < Stream::kRows * p_.m; i += Stream::kThreads) {
      const int r = i % Stream::kRows, t = i / Stream::kRows, n = first_row_ + r;
      if (n >= p_.n) continue;
      float value = sums.total(r, t);
      if (p_.first.bias != nullptr) value += p_.first.bias[n];
      if (p_.second.bias != nullptr) value += p_.second.bias[n];
      const std::size_t at = static_cast<std::size_t>(t) * p_.n + n;
      y[at] = __float2bfloat16_rn(__bfloat162float(y[at]) + value);
    }
  }

 private:
  __device__ int first_parts() const { return p_.first.k / p_.part_depth; }
  __device__ const StreamedTerm& term_of(int part) const {
    return part < first_parts() ? p_.first : p_.second;
  }
  __device__ int depth_of(int part) const {
    return (part < first_parts() ? part : part - first_parts()) * p_.part_depth;
  }

  const StreamedSum& p_;
  int first_row_;
};

// There are few blocks, one for a multiprocessor: the next kernel's find a place beside them.
template <class W, int kGroups>
__global__ void __launch_bounds__(StreamShape::kThreads, 1) add(StreamedSum p) {
  using Stream = WeightStream<W, StreamShape::kWarps, StreamShape::kAheadBytes, kGroups>;
  extern __shared__ __align__(16) char shared[];
  SumItems<Stream, W, kGroups> items(p);
  Stream stream(1, (p.first.k + p.second.k) / p.part_depth, p.part_depth,
                *reinterpret_cast<typename Stream::Shared*>(shared));
  stream.begin(items);
  stream.run(items);
}

template <class W, int kGroups>
cudaError_t launch(const StreamedSum& args, KernelStream stream) {
  using Stream = WeightStream<W, StreamShape::kWarps, StreamShape::kAheadBytes, kGroups>;
  const int tiles = (args.n + Stream::kRows - 1) / Stream::kRows;
  return launch_behind(add<W, kGroups>, dim3(static_cast<unsigned>(tiles)), Stream::kThreads,
                       stream, args, static_cast<int>(sizeof(typename Stream::Shared)));
}

template <class W>
cudaError_t launch(const StreamedSum& args, KernelStream stream) {
  return args.m <= 8 ? launch<W, 1>(args, stream) : launch<W, 2>(args, stream);
}

}  // namespace

cudaError_t streamed_sum(const StreamedSum& args, KernelStream stream) {
  StreamedSum parts = args;
  parts.part_depth = std::gcd(args.first.k, args.second.k);
  switch (args.weight_type) {
    case WeightType::kFloat8:
      return launch<Float8>(parts, stream);
    case WeightType::kInt4:
      return launch<Int4Tile>(parts, stream);
    default:
      return launch<__nv_bfloat16>(parts, stream);
  }
}

}  // namespace fovea::cuda
