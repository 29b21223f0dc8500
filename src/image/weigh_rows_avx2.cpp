// Compiled for AVX2, so no header with inline functions may come in here: the linker could keep
// this file's copy of such a function for the whole program, which would then fail on older
// processors.
#include <immintrin.h>

#include "image/weigh_rows.h"

namespace fovea {
namespace {

// What weigh_rows_x86.h needs of a register.
using Register = __m256i;
constexpr std::size_t kStep = 32;  // bytes of a register

inline Register zeros() { return _mm256_setzero_si256(); }
inline Register load(const std::uint8_t* bytes) {
  return _mm256_loadu_si256(reinterpret_cast<const Register*>(bytes));
}
inline void store(std::uint8_t* bytes, Register r) {
  _mm256_storeu_si256(reinterpret_cast<Register*>(bytes), r);
}
inline Register splat_words(short value) { return _mm256_set1_epi16(value); }
inline Register splat_dwords(int value) { return _mm256_set1_epi32(value); }
inline Register add_words(Register a, Register b) { return _mm256_add_epi16(a, b); }
inline Register add_dwords(Register a, Register b) { return _mm256_add_epi32(a, b); }
inline Register multiply_add_bytes(Register a, Register b) { return _mm256_maddubs_epi16(a, b); }
inline Register multiply_add_words(Register a, Register b) { return _mm256_madd_epi16(a, b); }
inline Register low_bytes(Register a, Register b) { return _mm256_unpacklo_epi8(a, b); }
inline Register high_bytes(Register a, Register b) { return _mm256_unpackhi_epi8(a, b); }
inline Register low_words(Register a, Register b) { return _mm256_unpacklo_epi16(a, b); }
inline Register high_words(Register a, Register b) { return _mm256_unpackhi_epi16(a, b); }
inline Register shift_weights_out(Register a) { return _mm256_srai_epi32(a, kWeightBits); }
inline Register pack_dwords(Register a, Register b) { return _mm256_packs_epi32(a, b); }
inline Register pack_words(Register a, Register b) { return _mm256_packus_epi16(a, b); }

}  // namespace
}  // namespace fovea

#include "image/weigh_rows_x86.h"

namespace fovea {

void weigh_rows_avx2(const std::uint8_t* rows, std::ptrdiff_t stride, const TapPair* pairs,
                     int num_taps, std::uint8_t* out, std::size_t num_bytes) {
  if (num_bytes < kStep) {
    weigh_rows_generic(rows, stride, pairs, num_taps, out, num_bytes);
    return;
  }
  weigh_long_rows(rows, stride, pairs, num_taps, out, num_bytes);
}

}  // namespace fovea
