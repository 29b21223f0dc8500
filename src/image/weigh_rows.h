#pragma once

#include <cstddef>
#include <cstdint>

#include "image/tap_pair.h"

namespace fovea {

/// The inner loop of both resize passes: a weighted sum of byte rows.
///   out[j] = clip((2^21 + sum over i of weight[i] * rows[i * stride + j]) >> 22, 0, 255), j in [0,
///   num_bytes)
/// `num_taps` >= 1 rows; the weights are pairs[i / 2].weight[i % 2]. `out` does not overlap the
/// rows. Sums fit 32 bits.
using WeighRows = void (*)(const std::uint8_t* rows, std::ptrdiff_t stride, const TapPair* pairs,
                           int num_taps, std::uint8_t* out, std::size_t num_bytes);

void weigh_rows_generic(const std::uint8_t* rows, std::ptrdiff_t stride, const TapPair* pairs,
                        int num_taps, std::uint8_t* out, std::size_t num_bytes);
#if defined(__x86_64__)
void weigh_rows_avx2(const std::uint8_t* rows, std::ptrdiff_t stride, const TapPair* pairs,
                     int num_taps, std::uint8_t* out, std::size_t num_bytes);
void weigh_rows_avx512(const std::uint8_t* rows, std::ptrdiff_t stride, const TapPair* pairs,
                       int num_taps, std::uint8_t* out, std::size_t num_bytes);
#elif defined(__aarch64__)
void weigh_rows_neon(const std::uint8_t* rows, std::ptrdiff_t stride, const TapPair* pairs,
                     int num_taps, std::uint8_t* out, std::size_t num_bytes);
#endif

/// The fastest of these that this processor runs. All give the same bytes.
WeighRows best_weigh_rows();

}  // namespace fovea
