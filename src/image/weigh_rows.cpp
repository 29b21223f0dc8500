#include "image/weigh_rows.h"

namespace fovea {
namespace {

constexpr std::int32_t kHalf = std::int32_t{1} << (kWeightBits - 1);

std::uint8_t clip(std::int32_t sum) {
  const std::int32_t value = sum >> kWeightBits;
  return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

}  // namespace

void weigh_rows_generic(const std::uint8_t* rows, std::ptrdiff_t stride, const TapPair* pairs,
                        int num_taps, std::uint8_t* out, std::size_t num_bytes) {
  // Columns in groups, so that the sums stay in registers and the compiler can vectorise the inner
  // loop.
  constexpr std::size_t kGroup = 32;
  for (std::size_t begin = 0; begin < num_bytes; begin += kGroup) {
    const std::size_t count = num_bytes - begin < kGroup ? num_bytes - begin : kGroup;
    std::int32_t sums[kGroup];
    for (std::int32_t& sum : sums) sum = kHalf;
    for (int i = 0; i < num_taps; ++i) {
      const std::int32_t weight = pairs[i / 2].weight[i % 2];
      const std::uint8_t* row = rows + i * stride + begin;
      for (std::size_t j = 0; j < count; ++j) sums[j] += weight * row[j];
    }
    for (std::size_t j = 0; j < count; ++j) out[begin + j] = clip(sums[j]);
  }
}

WeighRows best_weigh_rows() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bw")) return weigh_rows_avx512;
  if (__builtin_cpu_supports("avx2")) return weigh_rows_avx2;
  return weigh_rows_generic;
#elif defined(__aarch64__)
  return weigh_rows_neon;
#else
  return weigh_rows_generic;
#endif
}

}  // namespace fovea
