#include <cstddef>
#include <type_traits>

#include "backend/cuda/device_room.h"
#include "backend/cuda/expert_places.h"
#include "backend/cuda/native_kernels.h"
#include "backend/cuda/row_routing.h"
#include "backend/cuda/stream_shape.h"
#include "backend/cuda/weight_stream.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

template <class W>
constexpr bool kIsBf16 = std::is_same_v<W, __nv_bfloat16>;

// ---- the first product and its gate

// A block has several items in turn; three share a multiprocessor. Of narrow weights each warp
// keeps what it meets of x (of a depth of up to 2,048); of more than 8 rows two blocks have
// registers for it.
constexpr int kWarps = 8;
template <class W, int kGroups>
struct GatedShape {
  static constexpr int kAheadBytes = (!kIsBf16<W> ? 64 : kGroups == 1 ? 56 : 48) << 10;
  static constexpr int kSpans = kIsBf16<W> ? 1 : 4;
  static constexpr int kOfMultiprocessor = !kIsBf16<W> && kGroups > 1 ? 2 : 3;
};
template <class W, int kGroups>
using GatedStream = WeightStream<W, kWarps, GatedShape<W, kGroups>::kAheadBytes, kGroups,
                                 GatedShape<W, kGroups>::kSpans>;

// An item is 8 rows of h and the 8 of g that belong to them, of one expert, by all rows of x: those
// that did not choose it cost nothing, and are left out of what is stored.
template <class Stream, class W, int kGroups>
class GatedItems {
 public:
  static constexpr bool kScalesParts = false;
  static constexpr bool kReadsEarly = true;
  static constexpr bool kPartsDiffer = false;
  static constexpr bool kSharesX = true;
  static constexpr int kOutputs = 8;

  __device__ GatedItems(const RoutedRows& p, const RowRouting<kGroups * 8>& routing)
      : p_(p), routing_(routing) {}
  __device__ int count() const {
    const int items = tiles() * routing_.num_used;
    return (items - static_cast<int>(blockIdx.x) + static_cast<int>(gridDim.x) - 1) /
           static_cast<int>(gridDim.x);
  }
  __device__ __forceinline__ void weight_rows(int item, int, int, const W*& upper,
                                              const W*& lower) const {
    const void* weight = p_.weights[expert(item)];
    const int n = min(first_output(item) + lane_row(), p_.inner - 1);
    upper = weight_row<W>(weight, n, 2 * p_.inner, p_.dim);
    lower = weight_row<W>(weight, p_.inner + n, 2 * p_.inner, p_.dim);
  }
  __device__ __forceinline__ void x_rows(int, int, const __nv_bfloat16* (&x)[kGroups]) const {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int t = g * 8 + lane_row();
      x[g] = t < p_.rows
                 ? static_cast<const __nv_bfloat16*>(p_.x) + t * static_cast<std::size_t>(p_.dim)
                 : nullptr;
    }
  }
  struct Ready {};
  __device__ __forceinline__ Ready ready(int) const { return {}; }
  __device__ __forceinline__ void finish(int item, const typename Stream::Sums& sums,
                                         const Ready&) const {
    const int of = expert(item);
    const float* scale = p_.scales[of];
    for (int i = threadIdx.x; i < kOutputs * p_.rows; i += Stream::kThreads) {
      const int r = i % kOutputs, t = i / kOutputs, n = first_output(item) + r;
      const float counts = routing_.weights[t][of];
      if (n >= p_.inner || counts == 0) continue;
      float value = sums.total(r, t), gate = sums.total(r + 8, t);
      if (scale != nullptr) {
        value *= scale[n];
        gate *= scale[p_.inner + n];
      }
      // The second product sums up over the experts: the row's weight goes in here.
      static_cast<__nv_bfloat16*>(p_.gated)[place(item, t) * p_.inner + n] =
          __float2bfloat16_rn(gated(value, gate) * counts);
    }
  }

 private:
  __device__ int tiles() const { return (p_.inner + kOutputs - 1) / kOutputs; }
  __device__ int index(int item) const { return static_cast<int>(blockIdx.x + item * gridDim.x); }
  __device__ int expert(int item) const { return routing_.used[index(item) / tiles()]; }
  __device__ int first_output(int item) const { return index(item) % tiles() * kOutputs; }
  __device__ std::size_t place(int item, int row) const {
    return static_cast<std::size_t>(index(item) / tiles()) * p_.rows + row;
  }

  const RoutedRows& p_;
  const RowRouting<kGroups * 8>& routing_;
};

template <class W, int kGroups>
__global__ void __launch_bounds__(kWarps * 32, GatedShape<W, kGroups>::kOfMultiprocessor)
    gate_rows(RoutedRows p) {
  using Stream = GatedStream<W, kGroups>;
  extern __shared__ __align__(128) char shared[];  // copies come in lines
  __shared__ RowRouting<kGroups * 8> routing;
  if (!p.is_early) kernels::wait_for_earlier_kernels();
  route_rows(p.router, p.rows, p.num_experts, p.choices, routing);
  GatedItems<Stream, W, kGroups> items(p, routing);
  Stream stream(items.count(), 1, p.dim, *reinterpret_cast<typename Stream::Shared*>(shared));
  stream.begin(items);
  kernels::let_later_kernels_start();
  stream.run(items);
  // Whoever waits for this kernel waits for the one in front as well.
  if (p.is_early) kernels::wait_for_earlier_kernels();
}

// ---- the second product

// Narrow weights come in longer pieces.
template <class W, int kGroups>
using SumStream =
    WeightStream<W, StreamShape::kWarps, StreamShape::kAheadBytes, kGroups, kIsBf16<W> ? 1 : 2>;

// y += the sum over the experts, and `beside`, in terms of the experts' depth. A block has 16
// outputs of all rows; of a term, a row that did not choose the expert is zeros. Where all warps
// together take the depth of several terms at a time, these are one part of the stream: a warp then
// has a whole piece of one of them.
template <class Stream, class W, int kGroups>
class SumItems {
 public:
  static constexpr bool kScalesParts = kHasRowScale<W>;
  static constexpr bool kReadsEarly = false;
  static constexpr bool kPartsDiffer = false;
  static constexpr bool kSharesX = false;
  // What the block's outputs count of each used expert, and of `beside`; in shared memory.
  struct Scales {
    float of_used[kMostRoutedExperts][Stream::kRows], beside[Stream::kRows];
  };

  __device__ SumItems(const RoutedRows& p, const RowRouting<kGroups * 8>& routing, Scales& scales)
      : p_(p),
        routing_(routing),
        scales_(scales),
        beside_terms_(p.beside.weight == nullptr ? 0 : p.beside.k / p.inner),
        terms_of_part_(Stream::kStride % p.inner == 0 && p.inner % Stream::kDepth == 0
                           ? Stream::kStride / p.inner
                           : 1),
        own_(Stream::first() / p.inner % terms_of_part_),
        first_output_(static_cast<int>(blockIdx.x) * Stream::kRows) {}
  __device__ int num_parts() const { return (num_terms() + terms_of_part_ - 1) / terms_of_part_; }
  __device__ int depth() const { return terms_of_part_ * p_.inner; }
  __device__ __forceinline__ void weight_rows(int, int part, int, const W*& upper,
                                              const W*& lower) const {
    const Term term = term_of(part);
    const void* weight = term.is_beside ? p_.beside.weight : p_.weights[routing_.used[term.at]];
    const int k = term.is_beside ? p_.beside.k : p_.inner;
    const int from = term.is_beside ? term.at * p_.inner : 0;
    const int n = first_output_ + lane_row();
    upper = back(weight_row<W>(weight, n, p_.dim, k, from));
    lower = back(weight_row<W>(weight, n + 8, p_.dim, k, from));
  }
  __device__ __forceinline__ float2 part_scale(int, int part, int) const {
    const Term term = term_of(part);
    const float* scale = term.is_beside ? scales_.beside : scales_.of_used[term.at];
    return {scale[lane_row()], scale[lane_row() + 8]};
  }
  __device__ __forceinline__ void x_rows(int, int part, const __nv_bfloat16* (&x)[kGroups]) const {
    const Term term = term_of(part);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int t = g * 8 + lane_row();
      x[g] = nullptr;
      if (t >= p_.rows || !term.is_there) continue;
      if (term.is_beside) {
        x[g] = back(static_cast<const __nv_bfloat16*>(p_.beside.x) +
                    t * static_cast<std::size_t>(p_.beside.k) + term.at * p_.inner);
      } else if (routing_.weights[t][routing_.used[term.at]] != 0) {
        x[g] = back(static_cast<const __nv_bfloat16*>(p_.gated) +
                    (static_cast<std::size_t>(term.at) * p_.rows + t) * p_.inner);
      }
    }
  }
  struct Ready {
    float bias;
  };
  static_assert(Stream::kThreads % Stream::kRows == 0);
  __device__ __forceinline__ Ready ready(int) const {
    return {p_.beside.bias == nullptr ? 0 : p_.beside.bias[own_output()]};
  }
  __device__ __forceinline__ void finish(int, const typename Stream::Sums& sums,
                                         const Ready& ready) const {
    for (int i = threadIdx.x; i < Stream::kRows * p_.rows; i += Stream::kThreads) {
      const int r = i % Stream::kRows, t = i / Stream::kRows, n = first_output_ + r;
      if (n >= p_.dim) continue;
      auto* y = static_cast<__nv_bfloat16*>(p_.y) + t * static_cast<std::size_t>(p_.dim) + n;
      *y = __float2bfloat16_rn(__bfloat162float(*y) + (sums.total(r, t) + ready.bias));
    }
  }

  // This thread's part of the scales, asked for before the weights and stored behind that; the next
  // barrier shows them to all.
  static constexpr int kOwn = kMostRoutedExperts * Stream::kRows / Stream::kThreads;
  struct OwnScales {
    float of_used[kOwn], beside;
  };
  __device__ __forceinline__ OwnScales own_scales() const {
    OwnScales own;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int at = own_term(i);
      const float* scale = at < routing_.num_used ? p_.scales[routing_.used[at]] : nullptr;
      own.of_used[i] = scale == nullptr ? 1 : scale[own_output()];
    }
    const bool is_one = p_.beside.scale == nullptr || threadIdx.x >= Stream::kRows;
    own.beside = is_one ? 1 : p_.beside.scale[own_output()];
    return own;
  }
  __device__ __forceinline__ void put(const OwnScales& own) const {
    const int r = static_cast<int>(threadIdx.x) % Stream::kRows;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) scales_.of_used[own_term(i)][r] = own.of_used[i];
    if (threadIdx.x < Stream::kRows) scales_.beside[r] = own.beside;
  }

 private:
  // This warp's term of a part. Of a last part that is not full there may be none: the weights of
  // another are multiplied by zeros.
  struct Term {
    int at;  // of `beside` which one of its terms, or which of the used experts
    bool is_beside, is_there;
  };
  __device__ int num_terms() const { return beside_terms_ + routing_.num_used; }
  __device__ __forceinline__ Term term_of(int part) const {
    const int all = num_terms(), index = part * terms_of_part_ + own_;
    const int term = min(index, all - 1);
    const bool is_beside = term < beside_terms_;
    return {is_beside ? term : term - beside_terms_, is_beside, index < all};
  }
  // The stream counts the depth from the beginning of a part.
  template <class T>
  __device__ const T* back(const T* row) const {
    const int ahead = own_ * p_.inner;
    return row - (std::is_same_v<T, Int4Tile> ? ahead / kernels::kInt4TileDepth : ahead);
  }
  // The output and the terms whose scales this thread fetches.
  __device__ int own_output() const {
    return min(first_output_ + static_cast<int>(threadIdx.x) % Stream::kRows, p_.dim - 1);
  }
  __device__ static int own_term(int i) {
    return (i * Stream::kThreads + static_cast<int>(threadIdx.x)) / Stream::kRows;
  }

  const RoutedRows& p_;
  const RowRouting<kGroups * 8>& routing_;
  Scales& scales_;
  int beside_terms_;
  int terms_of_part_, own_;
  int first_output_;
};

template <class W, int kGroups>
__global__ void __launch_bounds__(StreamShape::kThreads, 1) add_rows(RoutedRows p) {
  using Stream = SumStream<W, kGroups>;
  using Items = SumItems<Stream, W, kGroups>;
  extern __shared__ __align__(128) char shared[];  // copies come in lines
  __shared__ RowRouting<kGroups * 8> routing;
  __shared__ typename Items::Scales scales;
  // The logits were there before the kernel in front, which is the first product's.
  route_rows(p.router, p.rows, p.num_experts, p.choices, routing);
  Items items(p, routing, scales);
  Stream stream(1, items.num_parts(), items.depth(),
                *reinterpret_cast<typename Stream::Shared*>(shared));
  typename Items::OwnScales own;
  if constexpr (Items::kScalesParts) own = items.own_scales();
  stream.begin(items);
  if constexpr (Items::kScalesParts) {
    items.put(own);
    __syncthreads();
  }
  kernels::wait_for_earlier_kernels();
  kernels::let_later_kernels_start();
  stream.run(items);
}

// ---- launches

template <class W, int kGroups>
cudaError_t launch(const RoutedRows& p, bool up, KernelStream on) {
  if (up) {
    const int blocks = device_room().multiprocessors * GatedShape<W, kGroups>::kOfMultiprocessor;
    return launch_behind(gate_rows<W, kGroups>, dim3(static_cast<unsigned>(blocks)), kWarps * 32,
                         on, p, static_cast<int>(sizeof(typename GatedStream<W, kGroups>::Shared)));
  }
  using Stream = SumStream<W, kGroups>;
  const int tiles = (p.dim + Stream::kRows - 1) / Stream::kRows;
  return launch_behind(add_rows<W, kGroups>, dim3(static_cast<unsigned>(tiles)),
                       StreamShape::kThreads, on, p,
                       static_cast<int>(sizeof(typename Stream::Shared)));
}

template <class W>
cudaError_t launch(const RoutedRows& p, bool up, KernelStream on) {
  return p.rows <= 8 ? launch<W, 1>(p, up, on) : launch<W, 2>(p, up, on);
}

}  // namespace

cudaError_t routed_rows(const RoutedRows& p, bool up, KernelStream on) {
  return with_weight_type(
      p.weight_type, [&](auto tag) { return launch<typename decltype(tag)::Type>(p, up, on); });
}

}  // namespace fovea::cuda
