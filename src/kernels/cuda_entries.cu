#include "all_kernels.h"
#include "cuda_dependent.h"
#include "cuda_entries.h"

namespace fovea {
namespace kernels {
namespace {

__device__ __forceinline__ Thread this_thread() {
  Thread t;
  t.block.x = blockIdx.x;
  t.block.y = blockIdx.y;
  t.block.z = blockIdx.z;
  t.index = threadIdx.x;
  t.lane = threadIdx.x % kWarpSize;
  t.warp = threadIdx.x / kWarpSize;
  t.num_warps = blockDim.x / kWarpSize;
  return t;
}

// A kernel's parameters by value, its buffers as typed pointers, its scratch as dynamic shared
// memory.
template <class Kernel, unsigned kThreads, class Params, class... Buffers>
__global__ void __launch_bounds__(kThreads)
    entry(const __grid_constant__ Params params, Buffers*... buffers) {
  extern __shared__ __align__(16) char scratch[];
  wait_for_earlier_kernels();
  let_later_kernels_start();
  Kernel::call(this_thread(), params, buffers..., static_cast<char*>(scratch));
}

template <class... Buffers>
constexpr std::size_t count_of() {
  return sizeof...(Buffers);
}

#define FOVEA_ENTRY(name, function, threads, Params, ...)                              \
  struct name##_kernel {                                                               \
    template <class... Args>                                                           \
    static __device__ __forceinline__ void call(const Thread& t, const Params& params, \
                                                Args... arguments) {                   \
      function(t, params, arguments...);                                               \
    }                                                                                  \
  };
#include "entries.inc"
#undef FOVEA_ENTRY

}  // namespace

const CudaKernel& cuda_kernel(KernelId id) {
  static const CudaKernel kKernels[] = {
#define FOVEA_ENTRY(name, function, threads, Params, ...)                                     \
  {#name, reinterpret_cast<const void*>(&entry<name##_kernel, threads, Params, __VA_ARGS__>), \
   threads, sizeof(Params), count_of<__VA_ARGS__>()},
#include "entries.inc"
#undef FOVEA_ENTRY
  };
  return kKernels[static_cast<std::size_t>(id)];
}

}  // namespace kernels
}  // namespace fovea
