#pragma once

// Hopper's tensor-core instructions, which a warpgroup (four warps) issues together and which run
// in the background, and the bulk copies and barriers that feed them. For .cu files that are
// compiled for sm_90a alone.
//
// A warpgroup's product is 64 rows high. Thread t of it holds rows t / 4 % 8 + 16 * (t / 32) and
// that + 8: of every 8 columns two, d[n][0..1] of the first row and d[n][2..3] of the other.

#include <cstdint>

namespace fovea::cuda {

/// How rows lie in shared memory: their 16-byte pieces change places within this many bytes.
enum class Swizzle : std::uint64_t { k128Bytes = 1, k32Bytes = 3 };

/// An operand in shared memory. `lead` and `stride` are the bytes between its 8x8 blocks:
/// `stride` from 8 rows in memory to the next 8; `lead` between columns of swizzled blocks, where
/// memory's rows run along n. The last 14 bits count 16 bytes: an offset in bytes / 16 may be
/// added.
__device__ __forceinline__ std::uint64_t operand(unsigned address, unsigned lead, unsigned stride,
                                                 Swizzle swizzle) {
  return std::uint64_t{(address & 0x3ffff) >> 4} | std::uint64_t{lead >> 4} << 16 |
         std::uint64_t{stride >> 4} << 32 | static_cast<std::uint64_t>(swizzle) << 62;
}

/// Between other uses of registers and products that read or write them.
__device__ __forceinline__ void fence_products() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
/// The products asked for since the last commit_products() become a group.
__device__ __forceinline__ void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Until all groups but the newest kPending are done.
template <int kPending>
__device__ __forceinline__ void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(kPending) : "memory");
}

#define FOVEA_SUMS_4(d, n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
#define FOVEA_SUMS_16(d, n) \
  FOVEA_SUMS_4(d, n), FOVEA_SUMS_4(d, n + 1), FOVEA_SUMS_4(d, n + 2), FOVEA_SUMS_4(d, n + 3)
#define FOVEA_REGISTERS_32                                                     \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16," \
  "%17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define FOVEA_REGISTERS_48 \
  FOVEA_REGISTERS_32       \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"

/// D = A . B^T (+ D), 64x16 by 16x96, bf16 with f32 sums; A and B in shared memory, rows along k.
__device__ __forceinline__ void multiply_64x96(float (&d)[12][4], std::uint64_t a, std::uint64_t b,
                                               bool adds) {
  asm volatile(
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, %50, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {" FOVEA_REGISTERS_48
      "}, %48, %49, adds, 1, 1, 0, 0;\n}\n"
      : FOVEA_SUMS_16(d, 0), FOVEA_SUMS_16(d, 4), FOVEA_SUMS_16(d, 8)
      : "l"(a), "l"(b), "r"(static_cast<int>(adds)));
}
/// D = A . B (+ D), 64x16 by 16x64; A in registers, B in shared memory, rows along n.
__device__ __forceinline__ void multiply_64x64(float (*d)[4], const unsigned (&a)[4],
                                               std::uint64_t b, bool adds) {
  asm volatile(
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" FOVEA_REGISTERS_32
      "}, {%32, %33, %34, %35}, %36, adds, 1, 1, 1;\n}\n"
      : FOVEA_SUMS_16(d, 0), FOVEA_SUMS_16(d, 4)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(adds)));
}
/// The same with 8 columns.
__device__ __forceinline__ void multiply_64x8(float (*d)[4], const unsigned (&a)[4],
                                              std::uint64_t b, bool adds) {
  asm volatile(
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, %9, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, %8, adds, 1, 1, 1;\n}\n"
      : FOVEA_SUMS_4(d, 0)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(adds)));
}

#undef FOVEA_SUMS_4
#undef FOVEA_SUMS_16
#undef FOVEA_REGISTERS_32
#undef FOVEA_REGISTERS_48

/// A barrier in shared memory: its phase ends after `count` arrivals and all the bytes that were
/// announced.
__device__ __forceinline__ void make_barrier(unsigned barrier, unsigned count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
/// Barriers made by this thread can be seen by copies.
__device__ __forceinline__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
/// Arrives, and announces bytes that copies will bring.
__device__ __forceinline__ void arrive_expecting(unsigned barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void arrive(unsigned barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/// Until the phase of this parity has ended.
__device__ __forceinline__ void wait_for(unsigned barrier, unsigned parity) {
  asm volatile(
      "{\n.reg .pred ended;\n"
      "again:\nmbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
      "@ended bra done;\nbra again;\ndone:\n}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
/// What this thread wrote to shared memory can be seen by products and copies.
__device__ __forceinline__ void publish_to_products() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// The box of a tensor map (a CUtensorMap of 4 dimensions) at these coordinates to shared memory,
/// announced at `barrier`. What lies beyond the tensor becomes zero.
__device__ __forceinline__ void copy_box(unsigned to, const void* map, int c0, int c1, int c2,
                                         int c3, unsigned barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4, %5}], [%6];"
      :
      : "r"(to), "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(barrier)
      : "memory");
}

/// How the second cache is to treat what a copy reads: as the first to go.
__device__ __forceinline__ std::uint64_t read_once() {
  std::uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
/// The same of a tensor map of 5 dimensions, with such a policy.
__device__ __forceinline__ void copy_box(unsigned to, const void* map, int c0, int c1, int c2,
                                         int c3, int c4, unsigned barrier, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1, {%2, %3, %4, %5, %6}], [%7], %8;"
      :
      : "r"(to), "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "r"(c4), "r"(barrier), "l"(policy)
      : "memory");
}

/// This warpgroup gives back all but so many registers of each thread (a multiple of 8) ...
template <int kRegisters>
__device__ __forceinline__ void keep_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(kRegisters));
}
/// ... and this one has so many, once they are free.
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(kRegisters));
}

}  // namespace fovea::cuda
