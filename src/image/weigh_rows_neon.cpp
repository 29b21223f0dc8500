#include <arm_neon.h>

#include "image/weigh_rows.h"

namespace fovea {
namespace {

struct Sums {
  int32x4_t part[4];  // [16] columns
};

inline void add_row(Sums& sums, uint8x16_t row, std::int32_t weight) {
  const uint16x8_t low = vmovl_u8(vget_low_u8(row));
  const uint16x8_t high = vmovl_u8(vget_high_u8(row));
  const uint16x4_t words[4] = {vget_low_u16(low), vget_high_u16(low), vget_low_u16(high),
                               vget_high_u16(high)};
  for (int i = 0; i < 4; ++i) {
    sums.part[i] = vmlaq_n_s32(sums.part[i], vreinterpretq_s32_u32(vmovl_u16(words[i])), weight);
  }
}

// Shifts right by 22 (16 while narrowing to 16 bits, then 6) and clips to 0..255.
inline uint8x16_t finish(const Sums& sums) {
  int16x8_t words[2];
  for (int i = 0; i < 2; ++i) {
    words[i] =
        vcombine_s16(vshrn_n_s32(sums.part[2 * i], 16), vshrn_n_s32(sums.part[2 * i + 1], 16));
  }
  constexpr int kRest = kWeightBits - 16;
  return vcombine_u8(vqshrun_n_s16(words[0], kRest), vqshrun_n_s16(words[1], kRest));
}

inline uint8x16_t weigh_16(const std::uint8_t* rows, std::ptrdiff_t stride, const TapPair* pairs,
                           int num_taps) {
  Sums sums;
  for (int32x4_t& part : sums.part) part = vdupq_n_s32(1 << (kWeightBits - 1));
  for (int i = 0; i < num_taps; ++i) {
    add_row(sums, vld1q_u8(rows + i * stride), pairs[i / 2].weight[i % 2]);
  }
  return finish(sums);
}

}  // namespace

void weigh_rows_neon(const std::uint8_t* rows, std::ptrdiff_t stride, const TapPair* pairs,
                     int num_taps, std::uint8_t* out, std::size_t num_bytes) {
  constexpr std::size_t kStep = 16;
  if (num_bytes < kStep) {
    weigh_rows_generic(rows, stride, pairs, num_taps, out, num_bytes);
    return;
  }
  std::size_t j = 0;
  for (; j + kStep <= num_bytes; j += kStep) {
    vst1q_u8(out + j, weigh_16(rows + j, stride, pairs, num_taps));
  }
  // The last group overlaps the one before it and computes the same bytes again.
  if (j < num_bytes) {
    j = num_bytes - kStep;
    vst1q_u8(out + j, weigh_16(rows + j, stride, pairs, num_taps));
  }
}

}  // namespace fovea
