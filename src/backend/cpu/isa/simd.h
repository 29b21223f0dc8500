#pragma once

// One vector type, FOVEA_LANES floats wide, spelled with the vector extensions that GCC and clang
// share; the instruction set decides what it compiles to. Included only by the files of isa/,
// inside which everything lives in the namespace FOVEA_ISA, so that no two instruction sets share a
// symbol. No standard header with inline functions may be included here: see kernel_table.h.

#include <stdint.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#include "kernel_table.h"

namespace fovea::cpu::FOVEA_ISA {

constexpr int kLanes = FOVEA_LANES;
constexpr int kTileRows = FOVEA_TILE_ROWS;  // rows of the register tile
constexpr int kVectors = FOVEA_VECTORS;     // vectors per row of the register tile
constexpr int kPanelCols = kLanes * kVectors;

typedef float Floats __attribute__((vector_size(4 * FOVEA_LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * FOVEA_LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * FOVEA_LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * FOVEA_LANES)));
typedef int8_t Bytes __attribute__((vector_size(FOVEA_LANES)));
typedef float LooseFloats __attribute__((vector_size(4 * FOVEA_LANES), aligned(4), may_alias));
typedef uint32_t LooseWords __attribute__((vector_size(4 * FOVEA_LANES), aligned(2), may_alias));
typedef uint32_t ByteWords __attribute__((vector_size(4 * FOVEA_LANES), aligned(1), may_alias));
typedef uint16_t LooseHalves __attribute__((vector_size(2 * FOVEA_LANES), aligned(2), may_alias));
typedef int8_t LooseBytes __attribute__((vector_size(FOVEA_LANES), aligned(1), may_alias));

static inline Floats splat(float x) {
#if FOVEA_LANES == 4
  return Floats{x, x, x, x};
#elif FOVEA_LANES == 8
  return Floats{x, x, x, x, x, x, x, x};
#else
  return Floats{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
#endif
}

static inline Floats load(const float* p) { return *reinterpret_cast<const LooseFloats*>(p); }
static inline void store(float* p, Floats v) { *reinterpret_cast<LooseFloats*>(p) = v; }

// The first `count` lanes (0 <= count <= kLanes), zeros elsewhere; memory past them is not touched.
static inline Floats load_some(const float* p, int64_t count) {
#if FOVEA_LANES == 16 && defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1u), p);
#else
  if (count >= kLanes) return load(p);
  Floats v = {};
  for (int64_t i = 0; i < count; ++i) v[i] = p[i];
  return v;
#endif
}
static inline void store_some(float* p, Floats v, int64_t count) {
#if FOVEA_LANES == 16 && defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1u), v);
#else
  if (count >= kLanes) {
    store(p, v);
    return;
  }
  for (int64_t i = 0; i < count; ++i) p[i] = v[i];
#endif
}

static inline Floats as_floats(Words v) { return reinterpret_cast<Floats>(v); }
static inline Floats as_floats(Ints v) { return reinterpret_cast<Floats>(v); }
static inline Words as_words(Floats v) { return reinterpret_cast<Words>(v); }
static inline Ints as_ints(Floats v) { return reinterpret_cast<Ints>(v); }

static inline Floats max(Floats a, Floats b) { return a > b ? a : b; }
static inline Floats min(Floats a, Floats b) { return a < b ? a : b; }

// a b + c in one rounding wherever the processor can: not left to the compiler, whose choice
// changes with the code around it. For sums that must come out the same everywhere.
static inline Floats multiply_add(Floats a, Floats b, Floats c) {
#if FOVEA_LANES == 16 && defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif FOVEA_LANES == 8 && defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#elif FOVEA_LANES == 4 && defined(__ARM_NEON)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}

// Halving keeps the sum of the lanes accurate and in the same order everywhere.
static inline float sum_lanes(Floats v) {
  float lane[kLanes];
  for (int i = 0; i < kLanes; ++i) lane[i] = v[i];
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  }
  return lane[0];
}
static inline float max_lanes(Floats v) {
  float best = v[0];
  for (int i = 1; i < kLanes; ++i) best = v[i] > best ? v[i] : best;
  return best;
}

// bf16 elements, one per lane.
static inline Floats load_bf16(const uint16_t* p) {
  const Halves halves = *reinterpret_cast<const LooseHalves*>(p);
  return as_floats(__builtin_convertvector(halves, Words) << 16);
}
static inline Floats load_bf16_some(const uint16_t* p, int64_t count) {
  if (count >= kLanes) return load_bf16(p);
  Words v = {};
  for (int64_t i = 0; i < count; ++i) v[i] = static_cast<uint32_t>(p[i]) << 16;
  return as_floats(v);
}

// A pair of bf16 in each lane: the even element is the low half.
static inline Words load_pairs(const uint16_t* p) {
  return *reinterpret_cast<const LooseWords*>(p);
}
static inline Floats even_of(Words pairs) { return as_floats(pairs << 16); }
static inline Floats odd_of(Words pairs) { return as_floats(pairs & 0xffff0000u); }

// Bytes, sign extended, one per lane.
static inline Ints load_bytes(const void* bytes) {
  const auto* p = static_cast<const uint8_t*>(bytes);
#if FOVEA_LANES == 8 && defined(__AVX2__)
  // GCC takes the generic form below apart into single bytes.
  return reinterpret_cast<Ints>(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#elif FOVEA_LANES == 16 && defined(__AVX512F__)
  // Zero-masked: GCC 12 warns about the undefined vector inside the plain one.
  return reinterpret_cast<Ints>(
      _mm512_maskz_cvtepi8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif FOVEA_LANES == 4 && defined(__ARM_NEON)
  uint32_t four;
  __builtin_memcpy(&four, p, sizeof(four));
  const int8x8_t codes = vreinterpret_s8_u32(vdup_n_u32(four));
  return reinterpret_cast<Ints>(vmovl_s16(vget_low_s16(vmovl_s8(codes))));
#else
  return __builtin_convertvector(*reinterpret_cast<const LooseBytes*>(p), Ints);
#endif
}

// e4m3 codes without NaN. The 7 magnitude bits moved to bit 20 are a float 2^120 times too small,
// subnormals included; the sign extension of the byte leaves the sign where a float has it.
static inline Floats load_f8(const uint8_t* p) {
  const Ints moved = (load_bytes(p) << 20) & static_cast<int32_t>(0x87f00000u);
  return as_floats(moved) * splat(0x1p120f);
}

// The same, fewer than a vector. One code is what its bits say, moved as load_f8 does.
static inline float widened_f8(uint8_t code) {
  const uint32_t word = (code & 0x80u) << 24 | (code & 0x7fu) << 20;
  float value;
  __builtin_memcpy(&value, &word, sizeof(value));
  return value * 0x1p120f;
}
static inline Floats load_f8_some(const uint8_t* p, int64_t count) {
  if (count >= kLanes) return load_f8(p);
  Floats v = {};
  for (int64_t i = 0; i < count; ++i) v[i] = widened_f8(p[i]);
  return v;
}

// Words of 8 codes of 4 bits (two's complement), one word per lane: code `i` of each, counted from
// the lowest bits, as a float.
static inline Words load_words(const uint8_t* p) { return *reinterpret_cast<const ByteWords*>(p); }
static inline Floats int4_of(Words words, int i) {
#if FOVEA_LANES == 16 && defined(__AVX512F__)
  // The look-up sees the lowest 4 bits. Zero-masked as above.
  const __m512 values = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
  return _mm512_maskz_permutexvar_ps(0xffff, reinterpret_cast<__m512i>(words >> (4 * i)), values);
#else
  const Ints signed_codes = reinterpret_cast<Ints>(words << (28 - 4 * i)) >> 28;
  return __builtin_convertvector(signed_codes, Floats);
#endif
}

// int8 elements, one per lane.
static inline Floats load_i8_some(const int8_t* p, int64_t count) {
  if (count >= kLanes) return __builtin_convertvector(load_bytes(p), Floats);
  Floats v = {};
  for (int64_t i = 0; i < count; ++i) v[i] = static_cast<float>(p[i]);
  return v;
}

}  // namespace fovea::cpu::FOVEA_ISA
