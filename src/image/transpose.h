#pragma once

#include <cstddef>
#include <cstdint>

namespace fovea {

/// Transposes a byte matrix: out[column * out_stride + row] = in[row * in_stride + column] for
/// num_rows x num_columns bytes. Strides in bytes; the two do not overlap.
void transpose_bytes(const std::uint8_t* in, std::ptrdiff_t in_stride, int num_rows,
                     int num_columns, std::uint8_t* out, std::ptrdiff_t out_stride);

}  // namespace fovea
