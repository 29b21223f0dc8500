#pragma once

#include <cstddef>

#include "dialect.h"
#include "kernel_id.h"

namespace fovea {
namespace kernels {

/// Runs one thread of a kernel: parameters, buffers and the block's shared memory as pointers.
using HostEntry = void (*)(const Thread& t, const void* params, void* const* buffers, char* shared);

/// What the emulator needs to know of a kernel.
struct HostKernel {
  const char* name;
  std::uint32_t max_threads;
  std::size_t params_bytes;
  std::size_t num_buffers;
  HostEntry run;
};

const HostKernel& host_kernel(KernelId id);

}  // namespace kernels
}  // namespace fovea
