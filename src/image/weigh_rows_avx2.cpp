// Compiled for AVX2, so no header with inline functions may come in here: the linker could keep
// this file's copy of such a function for the whole program, which would then fail on older
// processors.
#include <immintrin.h>

#include "image/weigh_rows.h"

namespace fovea {
namespace {

// Sums of 32 columns. Weight = high * 65536 + low, so each pair of rows costs one 8-bit and one
// 16-bit multiply-add; `high` sums wrap around in 16 bits, which loses nothing because only 16 bits
// of them reach the result.
struct Sums {
  __m256i low[4];   // [32] 32-bit sums, in the order that unpacking bytes leaves
  __m256i high[2];  // [32] 16-bit sums
};

inline void add_pair(Sums& sums, __m256i row0, __m256i row1, const TapPair& pair) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i low = _mm256_set1_epi32((static_cast<unsigned short>(pair.low[0])) |
                                        (static_cast<int>(pair.low[1]) << 16));
  const __m256i high = _mm256_set1_epi16(static_cast<short>(
      static_cast<unsigned char>(pair.high[0]) | (static_cast<int>(pair.high[1]) << 8)));
  const __m256i mixed[2] = {_mm256_unpacklo_epi8(row0, row1), _mm256_unpackhi_epi8(row0, row1)};
  for (int h = 0; h < 2; ++h) {
    sums.high[h] = _mm256_add_epi16(sums.high[h], _mm256_maddubs_epi16(mixed[h], high));
    sums.low[2 * h] = _mm256_add_epi32(
        sums.low[2 * h], _mm256_madd_epi16(_mm256_unpacklo_epi8(mixed[h], zero), low));
    sums.low[2 * h + 1] = _mm256_add_epi32(
        sums.low[2 * h + 1], _mm256_madd_epi16(_mm256_unpackhi_epi8(mixed[h], zero), low));
  }
}

// Adds both parts, shifts, and packs with saturation, which undoes the order of the unpacking.
inline __m256i finish(const Sums& sums) {
  const __m256i zero = _mm256_setzero_si256();
  __m256i words[2];
  for (int h = 0; h < 2; ++h) {
    const __m256i sum0 =
        _mm256_add_epi32(sums.low[2 * h], _mm256_unpacklo_epi16(zero, sums.high[h]));
    const __m256i sum1 =
        _mm256_add_epi32(sums.low[2 * h + 1], _mm256_unpackhi_epi16(zero, sums.high[h]));
    words[h] = _mm256_packs_epi32(_mm256_srai_epi32(sum0, kWeightBits),
                                  _mm256_srai_epi32(sum1, kWeightBits));
  }
  return _mm256_packus_epi16(words[0], words[1]);
}

inline __m256i load(const std::uint8_t* bytes) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
}

inline __m256i weigh_32(const std::uint8_t* rows, std::ptrdiff_t stride, const TapPair* pairs,
                        int num_taps) {
  const __m256i half = _mm256_set1_epi32(1 << (kWeightBits - 1));
  const __m256i zero = _mm256_setzero_si256();
  Sums sums = {{half, half, half, half}, {zero, zero}};
  const int num_pairs = num_taps / 2;
  for (int i = 0; i < num_pairs; ++i, rows += 2 * stride) {
    add_pair(sums, load(rows), load(rows + stride), pairs[i]);
  }
  if (num_taps % 2 != 0) add_pair(sums, load(rows), zero, pairs[num_pairs]);
  return finish(sums);
}

}  // namespace

void weigh_rows_avx2(const std::uint8_t* rows, std::ptrdiff_t stride, const TapPair* pairs,
                     int num_taps, std::uint8_t* out, std::size_t num_bytes) {
  constexpr std::size_t kStep = 32;
  if (num_bytes < kStep) {
    weigh_rows_generic(rows, stride, pairs, num_taps, out, num_bytes);
    return;
  }
  std::size_t j = 0;
  for (; j + kStep <= num_bytes; j += kStep) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + j),
                        weigh_32(rows + j, stride, pairs, num_taps));
  }
  // The last group overlaps the one before it and computes the same bytes again.
  if (j < num_bytes) {
    j = num_bytes - kStep;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + j),
                        weigh_32(rows + j, stride, pairs, num_taps));
  }
}

}  // namespace fovea
