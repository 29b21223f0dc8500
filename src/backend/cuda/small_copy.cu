#include "backend/cuda/native_kernels.h"
#include "kernels/cuda_dependent.h"

namespace fovea::cuda {
namespace {

constexpr int kThreads = 256;

// A thread copies a word. Host memory is read around the caches: a ring of it comes by again.
__global__ void __launch_bounds__(kThreads) copy_words(SmallCopy p) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  const bool is_inside = i < p.words;
  const auto* from = static_cast<const unsigned*>(p.from) + i;
  unsigned word = 0;
  if (p.is_from_host && is_inside) word = __ldcv(from);
  kernels::wait_for_earlier_kernels();
  kernels::let_later_kernels_start();
  if (!p.is_from_host && is_inside) word = __ldcg(from);
  if (is_inside) static_cast<unsigned*>(p.to)[i] = word;
}

}  // namespace

cudaError_t small_copy(const SmallCopy& args, KernelStream stream) {
  const auto blocks = static_cast<unsigned>((args.words + kThreads - 1) / kThreads);
  return launch_behind(copy_words, dim3(blocks), kThreads, stream, args);
}

}  // namespace fovea::cuda
