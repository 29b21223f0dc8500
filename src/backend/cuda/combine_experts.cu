#include "backend/cuda/native_kernels.h"
#include "backend/cuda/tensor_core.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kElements = 8;  // of a load
constexpr int kAtOnce = 8;    // choices whose results are under way

// One block for each row.
__global__ void __launch_bounds__(kThreads) combine(CombinedExperts p) {
  kernels::wait_for_earlier_kernels();
  kernels::let_later_kernels_start();
  const std::size_t row = blockIdx.x;
  const std::int32_t* places = p.places + row * p.choices;
  const float* weights = p.weights + row * p.choices;
  const auto* results = static_cast<const __nv_bfloat16*>(p.results);
  auto* y = static_cast<__nv_bfloat16*>(p.y) + row * p.width;
  for (int i = static_cast<int>(threadIdx.x) * kElements; i < p.width; i += kThreads * kElements) {
    float sums[kElements];
    widen_8(*reinterpret_cast<const uint4*>(y + i), sums);
    for (int first = 0; first < p.choices; first += kAtOnce) {
      uint4 loaded[kAtOnce];
#pragma unroll
      for (int c = 0; c < kAtOnce; ++c) {
        if (first + c >= p.choices) break;
        const auto place = static_cast<std::size_t>(places[first + c]);
        loaded[c] = __ldcg(reinterpret_cast<const uint4*>(results + place * p.width + i));
      }
#pragma unroll
      for (int c = 0; c < kAtOnce; ++c) {
        if (first + c >= p.choices) break;
        const float weight = weights[first + c];
        float values[kElements];
        widen_8(loaded[c], values);
#pragma unroll
        for (int e = 0; e < kElements; ++e) sums[e] += weight * values[e];
      }
    }
    *reinterpret_cast<uint4*>(y + i) = {pair_of(sums[0], sums[1]), pair_of(sums[2], sums[3]),
                                        pair_of(sums[4], sums[5]), pair_of(sums[6], sums[7])};
  }
}

}  // namespace

cudaError_t combine_experts(const CombinedExperts& args, KernelStream stream) {
  return launch_behind(combine, dim3(static_cast<unsigned>(args.rows)), kThreads, stream, args);
}

}  // namespace fovea::cuda
