#include "host_entries.h"

#include <type_traits>
#include <utility>

#include "all_kernels.h"

namespace fovea {
namespace kernels {
namespace {

// Calls a kernel with its buffers in their types.
template <class Kernel, class Params, class... Buffers>
struct Caller {
  static_assert(std::is_trivially_copyable_v<Params> && sizeof(Params) % 16 == 0,
                "parameters are plain and a multiple of 16 bytes");

  static void run(const Thread& t, const void* params, void* const* buffers, char* shared) {
    call(t, *static_cast<const Params*>(params), buffers, shared,
         std::index_sequence_for<Buffers...>());
  }
  template <std::size_t... kIndex>
  static void call(const Thread& t, const Params& params, void* const* buffers, char* shared,
                   std::index_sequence<kIndex...>) {
    Kernel::call(t, params, static_cast<Buffers*>(buffers[kIndex])..., shared);
  }
  static constexpr std::size_t kNumBuffers = sizeof...(Buffers);
};

#define FOVEA_ENTRY(name, function, threads, Params, ...)                        \
  struct name##_kernel {                                                         \
    template <class... Args>                                                     \
    static void call(const Thread& t, const Params& params, Args... arguments) { \
      function(t, params, arguments...);                                         \
    }                                                                            \
  };
#include "entries.inc"
#undef FOVEA_ENTRY

constexpr HostKernel kKernels[] = {
#define FOVEA_ENTRY(name, function, threads, Params, ...)                                   \
  {#name, threads, sizeof(Params), Caller<name##_kernel, Params, __VA_ARGS__>::kNumBuffers, \
   &Caller<name##_kernel, Params, __VA_ARGS__>::run},
#include "entries.inc"
#undef FOVEA_ENTRY
};

}  // namespace

const HostKernel& host_kernel(KernelId id) { return kKernels[static_cast<std::size_t>(id)]; }

}  // namespace kernels
}  // namespace fovea
