#include <cstddef>
#include <type_traits>

#include "backend/cuda/device_room.h"
#include "backend/cuda/expert_places.h"
#include "backend/cuda/native_kernels.h"
#include "backend/cuda/weight_stream.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

// A block has several items in turn; three share a multiprocessor. Narrow weights of up to 8 places
// come in longer pieces.
constexpr int kStreamWarps = 8, kAheadBytes = 56 << 10, kBlocksOfMultiprocessor = 3;
template <class W, int kGroups>
using ExpertStream = WeightStream<W, kStreamWarps, kAheadBytes, kGroups,
                                  kGroups == 1 && !std::is_same_v<W, __nv_bfloat16> ? 2 : 1>;
// Of so many rows an expert seldom has more than 8: a few weights are read twice.
constexpr int kRowsOfOneGroup = 32;
// Of every expert one that is not full, and the full ones.
constexpr int kMostPieces = kMostNativeExperts + kMostStreamedExpertRows * kMostNativeChoices / 16;

// What a block knows of the experts' places, in shared memory.
struct Places {
  ExpertPlaces pieces[kMostPieces];
};

// The pieces of all experts. Called by all threads.
__device__ __forceinline__ int list_pieces(const ExpertProduct& p, int size, Places& places) {
  const int lane = threadIdx.x % 32;
  int count = 0;
  for (int base = 0; base < p.num_experts; base += 32) {  // every warp, so that all know the count
    const int expert = base + lane;
    const int begin = expert < p.num_experts ? __ldcg(p.offsets + expert) : 0;
    const int end = expert < p.num_experts ? __ldcg(p.offsets + expert + 1) : 0;
    const int own = (end - begin + size - 1) / size;
    const int before = prefix_sum(own);
    if (threadIdx.x < 32) {
      for (int i = 0; i < own; ++i) {
        const int from = begin + i * size;
        places.pieces[count + before - own + i] = {expert, from, min(from + size, end)};
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
  static constexpr bool kReadsEarly = kUp;
  static constexpr bool kPartsDiffer = false;
  static constexpr bool kSharesX = false;
  static constexpr int kOutputs = kUp ? 8 : 16;

  __device__ ExpertItems(const ExpertProduct& p, const Places& places, int num_pieces)
      : p_(p), places_(places), num_pieces_(num_pieces) {}
  __device__ int count() const {
    const int items = tiles() * num_pieces_;
    return (items - static_cast<int>(blockIdx.x) + static_cast<int>(gridDim.x) - 1) /
           static_cast<int>(gridDim.x);
  }
  __device__ __forceinline__ void weight_rows(int item, int, int, const W*& upper,
                                              const W*& lower) const {
    const void* weight = p_.weights[piece(item).expert];
    const int n = min(first_output(item) + lane_row(), outputs() - 1);
    const int other = kUp ? outputs() + n : first_output(item) + lane_row() + 8;
    upper = weight_row<W>(weight, n, p_.n, p_.k);
    lower = weight_row<W>(weight, other, p_.n, p_.k);
  }
  __device__ __forceinline__ void x_rows(int item, int, const __nv_bfloat16* (&x)[kGroups]) const {
    const ExpertPlaces of = piece(item);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const int place = of.begin + g * 8 + lane_row();
      x[g] = nullptr;
      if (place < of.end) {
        const int row = kUp ? __ldcg(p_.row_of_place + place) : place;
        x[g] = static_cast<const __nv_bfloat16*>(p_.x) + row * static_cast<std::size_t>(p_.k);
      }
    }
  }
  struct Ready {};
  __device__ __forceinline__ Ready ready(int) const { return {}; }
  __device__ __forceinline__ void finish(int item, const typename Stream::Sums& sums,
                                         const Ready&) const {
    const ExpertPlaces of = piece(item);
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
        value = gated(with_added(p_, value, of.begin + t, n),
                      with_added(p_, gate, of.begin + t, outputs() + n));
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
  __device__ const ExpertPlaces& piece(int item) const {
    return places_.pieces[index(item) / tiles()];
  }
  __device__ int first_output(int item) const { return index(item) % tiles() * kOutputs; }

  const ExpertProduct& p_;
  const Places& places_;
  int num_pieces_;
};

template <class W, int kGroups, bool kUp>
__global__ void __launch_bounds__(kStreamWarps * 32, kBlocksOfMultiprocessor)
    stream_experts(ExpertProduct p) {
  using Stream = ExpertStream<W, kGroups>;
  extern __shared__ __align__(128) char shared[];  // copies come in lines
  __shared__ Places places;
  if (kUp) kernels::wait_for_earlier_kernels();
  // The places of the second product are those of the first, whose inputs are complete by now.
  const int num_pieces = list_pieces(p, kGroups * 8, places);
  ExpertItems<Stream, W, kGroups, kUp> items(p, places, num_pieces);
  Stream stream(items.count(), 1, p.k, *reinterpret_cast<typename Stream::Shared*>(shared));
  stream.begin(items);
  if (!kUp) kernels::wait_for_earlier_kernels();
  kernels::let_later_kernels_start();
  stream.run(items);
}

template <class W, int kGroups>
cudaError_t stream(const ExpertProduct& p, bool up, int multiprocessors, KernelStream on) {
  using Stream = ExpertStream<W, kGroups>;
  const auto blocks = static_cast<unsigned>(multiprocessors * kBlocksOfMultiprocessor);
  return launch_behind(up ? stream_experts<W, kGroups, true> : stream_experts<W, kGroups, false>,
                       dim3(blocks), Stream::kThreads, on, p,
                       static_cast<int>(sizeof(typename Stream::Shared)));
}

template <class W>
cudaError_t stream(const ExpertProduct& p, bool up, KernelStream on) {
  const int multiprocessors = device_room().multiprocessors;
  return p.num_rows <= kRowsOfOneGroup ? stream<W, 1>(p, up, multiprocessors, on)
                                       : stream<W, 2>(p, up, multiprocessors, on);
}

}  // namespace

cudaError_t streamed_experts(const ExpertProduct& p, bool up, KernelStream on) {
  return with_weight_type(
      p.weight_type, [&](auto tag) { return stream<typename decltype(tag)::Type>(p, up, on); });
}

}  // namespace fovea::cuda
