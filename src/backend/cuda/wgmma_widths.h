#pragma once

// Hopper's products of 64 rows by multiples of 32 columns, of bf16 and of e4m3, beside what
// wgmma.h has. For .cu files that are compiled for sm_90a alone.

#include <cstdint>

#include "backend/cuda/wgmma.h"

namespace fovea::cuda {

/// Where p is, as the instructions for shared memory take it.
__device__ __forceinline__ unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}

/// What the elements of both operands are.
enum class Elements { kBf16, kE4m3 };

/// D += A . B^T with f32 sums, 64 rows by kColumns, over 32 bytes of the depth: 16 bf16 or 32 e4m3.
/// A and B in shared memory, rows along k. The tensor core keeps sums of e4m3 to about 14 bits.
template <Elements kElements, int kColumns>
__device__ __forceinline__ void multiply_64(float (&d)[kColumns / 8][4], std::uint64_t a,
                                            std::uint64_t b);

#define FOVEA_SUMS_8(n)                                                          \
  "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3]), "+f"(d[n + 1][0]), \
      "+f"(d[n + 1][1]), "+f"(d[n + 1][2]), "+f"(d[n + 1][3])
#define FOVEA_SUMS_OF_16 FOVEA_SUMS_8(0)
#define FOVEA_SUMS_OF_32 FOVEA_SUMS_OF_16, FOVEA_SUMS_8(2)
#define FOVEA_SUMS_OF_48 FOVEA_SUMS_OF_32, FOVEA_SUMS_8(4)
#define FOVEA_SUMS_OF_64 FOVEA_SUMS_OF_48, FOVEA_SUMS_8(6)
#define FOVEA_SUMS_OF_80 FOVEA_SUMS_OF_64, FOVEA_SUMS_8(8)
#define FOVEA_SUMS_OF_96 FOVEA_SUMS_OF_80, FOVEA_SUMS_8(10)
#define FOVEA_SUMS_OF_112 FOVEA_SUMS_OF_96, FOVEA_SUMS_8(12)
#define FOVEA_SUMS_OF_128 FOVEA_SUMS_OF_112, FOVEA_SUMS_8(14)
#define FOVEA_SUMS_OF_144 FOVEA_SUMS_OF_128, FOVEA_SUMS_8(16)
#define FOVEA_SUMS_OF_160 FOVEA_SUMS_OF_144, FOVEA_SUMS_8(18)
#define FOVEA_SUMS_OF_176 FOVEA_SUMS_OF_160, FOVEA_SUMS_8(20)
#define FOVEA_SUMS_OF_192 FOVEA_SUMS_OF_176, FOVEA_SUMS_8(22)
#define FOVEA_SUMS_OF_208 FOVEA_SUMS_OF_192, FOVEA_SUMS_8(24)
#define FOVEA_SUMS_OF_224 FOVEA_SUMS_OF_208, FOVEA_SUMS_8(26)
#define FOVEA_SUMS_OF_240 FOVEA_SUMS_OF_224, FOVEA_SUMS_8(28)
#define FOVEA_SUMS_OF_256 FOVEA_SUMS_OF_240, FOVEA_SUMS_8(30)

#define FOVEA_REGISTERS_OF_16 "%0, %1, %2, %3, %4, %5, %6, %7"
#define FOVEA_REGISTERS_OF_32 FOVEA_REGISTERS_OF_16 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define FOVEA_REGISTERS_OF_48 FOVEA_REGISTERS_OF_32 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define FOVEA_REGISTERS_OF_64 FOVEA_REGISTERS_OF_48 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define FOVEA_REGISTERS_OF_80 FOVEA_REGISTERS_OF_64 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define FOVEA_REGISTERS_OF_96 FOVEA_REGISTERS_OF_80 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define FOVEA_REGISTERS_OF_112 FOVEA_REGISTERS_OF_96 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define FOVEA_REGISTERS_OF_128 FOVEA_REGISTERS_OF_112 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define FOVEA_REGISTERS_OF_144 FOVEA_REGISTERS_OF_128 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define FOVEA_REGISTERS_OF_160 FOVEA_REGISTERS_OF_144 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define FOVEA_REGISTERS_OF_176 FOVEA_REGISTERS_OF_160 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define FOVEA_REGISTERS_OF_192 FOVEA_REGISTERS_OF_176 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define FOVEA_REGISTERS_OF_208 FOVEA_REGISTERS_OF_192 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define FOVEA_REGISTERS_OF_224 \
  FOVEA_REGISTERS_OF_208 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define FOVEA_REGISTERS_OF_240 \
  FOVEA_REGISTERS_OF_224 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define FOVEA_REGISTERS_OF_256 \
  FOVEA_REGISTERS_OF_240 ", %120, %121, %122, %123, %124, %125, %126, %127"

// Elements, columns, the instruction's name behind its columns, what follows "adds", and the
// numbers of the operands behind the sums.
#define FOVEA_MULTIPLY_64_OF(elements, columns, types, signs, a_at, b_at, adds_at)           \
  template <>                                                                                \
  __device__ __forceinline__ void multiply_64<elements, columns>(                            \
      float(&d)[columns / 8][4], std::uint64_t a, std::uint64_t b) {                         \
    asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, %" #adds_at                         \
                 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #columns types                    \
                 " {" FOVEA_REGISTERS_OF_##columns "}, %" #a_at ", %" #b_at ", adds, " signs \
                                                   ";\n}\n"                                  \
                 : FOVEA_SUMS_OF_##columns                                                   \
                 : "l"(a), "l"(b), "r"(1));                                                  \
  }
#define FOVEA_MULTIPLY_64(columns, a_at, b_at, adds_at)                                         \
  FOVEA_MULTIPLY_64_OF(Elements::kBf16, columns, "k16.f32.bf16.bf16", "1, 1, 0, 0", a_at, b_at, \
                       adds_at)                                                                 \
  FOVEA_MULTIPLY_64_OF(Elements::kE4m3, columns, "k32.f32.e4m3.e4m3", "1, 1", a_at, b_at, adds_at)
FOVEA_MULTIPLY_64(32, 16, 17, 18)
FOVEA_MULTIPLY_64(64, 32, 33, 34)
FOVEA_MULTIPLY_64(96, 48, 49, 50)
FOVEA_MULTIPLY_64(128, 64, 65, 66)
FOVEA_MULTIPLY_64(160, 80, 81, 82)
FOVEA_MULTIPLY_64(192, 96, 97, 98)
FOVEA_MULTIPLY_64(224, 112, 113, 114)
FOVEA_MULTIPLY_64(256, 128, 129, 130)

#undef FOVEA_MULTIPLY_64
#undef FOVEA_MULTIPLY_64_OF
#undef FOVEA_SUMS_8
#undef FOVEA_SUMS_OF_16
#undef FOVEA_SUMS_OF_32
#undef FOVEA_SUMS_OF_48
#undef FOVEA_SUMS_OF_64
#undef FOVEA_SUMS_OF_80
#undef FOVEA_SUMS_OF_96
#undef FOVEA_SUMS_OF_112
#undef FOVEA_SUMS_OF_128
#undef FOVEA_SUMS_OF_144
#undef FOVEA_SUMS_OF_160
#undef FOVEA_SUMS_OF_176
#undef FOVEA_SUMS_OF_192
#undef FOVEA_SUMS_OF_208
#undef FOVEA_SUMS_OF_224
#undef FOVEA_SUMS_OF_240
#undef FOVEA_SUMS_OF_256
#undef FOVEA_REGISTERS_OF_16
#undef FOVEA_REGISTERS_OF_32
#undef FOVEA_REGISTERS_OF_48
#undef FOVEA_REGISTERS_OF_64
#undef FOVEA_REGISTERS_OF_80
#undef FOVEA_REGISTERS_OF_96
#undef FOVEA_REGISTERS_OF_112
#undef FOVEA_REGISTERS_OF_128
#undef FOVEA_REGISTERS_OF_144
#undef FOVEA_REGISTERS_OF_160
#undef FOVEA_REGISTERS_OF_176
#undef FOVEA_REGISTERS_OF_192
#undef FOVEA_REGISTERS_OF_208
#undef FOVEA_REGISTERS_OF_224
#undef FOVEA_REGISTERS_OF_240
#undef FOVEA_REGISTERS_OF_256

/// Arrives at a barrier once all that this thread has asked copy_16() for is there.
__device__ __forceinline__ void arrive_behind_copies(unsigned barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

/// An 8x8 matrix of 16-bit elements, each lane holding two neighbours of a row, transposed.
__device__ __forceinline__ unsigned transposed(unsigned pair) {
  unsigned out;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(pair));
  return out;
}

}  // namespace fovea::cuda
