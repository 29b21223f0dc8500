#pragma once

// The weighted sum of byte rows for x86, written once over a Register that the including file
// defines (AVX2 or AVX-512) and compiled with that file's instruction set.

#include "image/weigh_rows.h"

namespace fovea {
namespace {

// Sums of kStep columns. Weight = high * 65536 + low, so each pair of rows costs one 8-bit and one
// 16-bit multiply-add; `high` sums wrap around in 16 bits, which loses nothing because only 16 bits
// of them reach the result.
struct Sums {
  Register low[4];   // [kStep] 32-bit sums, in the order that unpacking bytes leaves
  Register high[2];  // [kStep] 16-bit sums
};

inline void add_pair(Sums& sums, Register row0, Register row1, const TapPair& pair) {
  const Register zero = zeros();
  const Register low = splat_dwords((static_cast<unsigned short>(pair.low[0])) |
                                    (static_cast<int>(pair.low[1]) << 16));
  const Register high = splat_words(static_cast<short>(static_cast<unsigned char>(pair.high[0]) |
                                                       (static_cast<int>(pair.high[1]) << 8)));
  const Register mixed[2] = {low_bytes(row0, row1), high_bytes(row0, row1)};
  for (int h = 0; h < 2; ++h) {
    sums.high[h] = add_words(sums.high[h], multiply_add_bytes(mixed[h], high));
    sums.low[2 * h] =
        add_dwords(sums.low[2 * h], multiply_add_words(low_bytes(mixed[h], zero), low));
    sums.low[2 * h + 1] =
        add_dwords(sums.low[2 * h + 1], multiply_add_words(high_bytes(mixed[h], zero), low));
  }
}

// Adds both parts, shifts, and packs with saturation, which undoes the order of the unpacking.
inline Register finish(const Sums& sums) {
  const Register zero = zeros();
  Register words[2];
  for (int h = 0; h < 2; ++h) {
    const Register sum0 = add_dwords(sums.low[2 * h], low_words(zero, sums.high[h]));
    const Register sum1 = add_dwords(sums.low[2 * h + 1], high_words(zero, sums.high[h]));
    words[h] = pack_dwords(shift_weights_out(sum0), shift_weights_out(sum1));
  }
  return pack_words(words[0], words[1]);
}

inline Register weigh_columns(const std::uint8_t* rows, std::ptrdiff_t stride, const TapPair* pairs,
                              int num_taps) {
  const Register half = splat_dwords(1 << (kWeightBits - 1));
  const Register zero = zeros();
  Sums sums = {{half, half, half, half}, {zero, zero}};
  const int num_pairs = num_taps / 2;
  for (int i = 0; i < num_pairs; ++i, rows += 2 * stride) {
    add_pair(sums, load(rows), load(rows + stride), pairs[i]);
  }
  if (num_taps % 2 != 0) add_pair(sums, load(rows), zero, pairs[num_pairs]);
  return finish(sums);
}

// Rows of at least kStep bytes.
inline void weigh_long_rows(const std::uint8_t* rows, std::ptrdiff_t stride, const TapPair* pairs,
                            int num_taps, std::uint8_t* out, std::size_t num_bytes) {
  std::size_t j = 0;
  for (; j + kStep <= num_bytes; j += kStep) {
    store(out + j, weigh_columns(rows + j, stride, pairs, num_taps));
  }
  // The last group overlaps the one before it and computes the same bytes again.
  if (j < num_bytes) {
    j = num_bytes - kStep;
    store(out + j, weigh_columns(rows + j, stride, pairs, num_taps));
  }
}

}  // namespace
}  // namespace fovea
