#include "image/transpose.h"

#include <cstring>

namespace fovea {
namespace {

constexpr int kTile = 16;
using Bytes16 = std::uint8_t __attribute__((vector_size(kTile)));

Bytes16 interleave_low(Bytes16 a, Bytes16 b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

Bytes16 interleave_high(Bytes16 a, Bytes16 b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                 31);
}

// Interleaving row i with row i + 8 moves one bit of the row number into the column number; four
// rounds swap them.
void interleave_round(const Bytes16 (&in)[kTile], Bytes16 (&out)[kTile]) {
#pragma GCC unroll 8
  for (int i = 0; i < kTile / 2; ++i) {
    out[2 * i] = interleave_low(in[i], in[i + kTile / 2]);
    out[2 * i + 1] = interleave_high(in[i], in[i + kTile / 2]);
  }
}

void transpose_tile(const std::uint8_t* in, std::ptrdiff_t in_stride, std::uint8_t* out,
                    std::ptrdiff_t out_stride) {
  Bytes16 a[kTile];
  Bytes16 b[kTile];
#pragma GCC unroll 16
  for (int i = 0; i < kTile; ++i) std::memcpy(&a[i], in + i * in_stride, kTile);
  interleave_round(a, b);
  interleave_round(b, a);
  interleave_round(a, b);
  interleave_round(b, a);
#pragma GCC unroll 16
  for (int i = 0; i < kTile; ++i) std::memcpy(out + i * out_stride, &a[i], kTile);
}

}  // namespace

void transpose_bytes(const std::uint8_t* in, std::ptrdiff_t in_stride, int num_rows,
                     int num_columns, std::uint8_t* out, std::ptrdiff_t out_stride) {
  const int whole_rows = num_rows - num_rows % kTile;
  const int whole_columns = num_columns - num_columns % kTile;
  for (int row = 0; row < whole_rows; row += kTile) {
    for (int column = 0; column < whole_columns; column += kTile) {
      transpose_tile(in + row * in_stride + column, in_stride, out + column * out_stride + row,
                     out_stride);
    }
  }
  for (int row = 0; row < num_rows; ++row) {
    const int column_begin = row < whole_rows ? whole_columns : 0;
    for (int column = column_begin; column < num_columns; ++column) {
      out[column * out_stride + row] = in[row * in_stride + column];
    }
  }
}

}  // namespace fovea
