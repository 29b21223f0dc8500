#pragma once

// The language that kernels are written in: the part of C++14 that CUDA, Metal and the host share,
// and the words below. docs/kernels.md explains them. A kernel is an ordinary function template
// whose place in the grid, parameters and scratch are arguments; that keeps it free of #ifdef.
//
// Address spaces  GPU_GLOBAL GPU_CONST GPU_SHARED    empty but for Metal
// Functions       GPU_FN, GPU_UNROLL
// Types           u8 i8 u32 i32 u64, bf16, f8e4m3 (and int4_tile, in int4_tile.h)
// Place           Thread t: t.block.{x,y,z}, t.index (in the block), t.lane, t.warp, t.num_warps
// Collectives     block_sync, warp_sync, shuffle, shuffle_xor, warp_sum, warp_max,
//                 lanes_where; of a cluster's blocks cluster_arrive, cluster_wait, cluster_sync,
//                 store_to_peer
// Maths           to_f32, from_f32<T>, gpu_exp2, gpu_exp, gpu_log, gpu_log2_about, gpu_sqrt,
//                 gpu_tanh, gpu_sin, gpu_cos, gpu_rint, gpu_abs, gpu_fma, gpu_max, gpu_min, is_nan,
//                 is_finite, mul_hi, lowest_bit, count_bits
// Atomics         atomic_add_u32 (on shared memory)

#if defined(__CUDACC__)
#include "dialect_cuda.h"
#else
#include "dialect_host.h"
#endif

namespace fovea {
namespace kernels {

/// Threads that run in step on every device.
constexpr GPU_CONST u32 kWarpSize = 32;

}  // namespace kernels
}  // namespace fovea
