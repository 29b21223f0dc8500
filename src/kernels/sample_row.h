#pragma once

// What the sampler's two kernels share: tables, segments of a row, and what a word counts.
//
// A row of logits is cut into segments of 1024 words, and these into groups of 32. sample_scan, a
// warp for each segment, finds the largest logits and sums the softmax. sample_choose, a block for
// each row, cuts and draws: it looks only at groups whose largest logit is likely enough.
//
// What a word counts in the draw is a whole number, of 2^-31 of the likeliest word. Sums of these
// are exact, so that the answer does not depend on the number of threads or on the order in which
// they add.

#include "common.h"

namespace fovea {
namespace kernels {

constexpr GPU_CONST u32 kSegmentWords = 1024;
constexpr GPU_CONST u32 kLaneWords = kSegmentWords / kWarpSize;  // of a segment
constexpr GPU_CONST u32 kSegmentGroups = kSegmentWords / kWarpSize;

/// Where in a segment a lane's word i is: four side by side of each 128.
GPU_FN u32 lane_word(Thread t, u32 i) { return i / 4 * 4 * kWarpSize + t.lane * 4 + i % 4; }

/// As fovea::SamplingRow; 64-bit numbers in halves.
struct SampleRow {
  float temperature;
  float top_p;
  float min_p;
  u32 top_k;
  u32 seed[2];
  u32 position[2];
  u32 allowed_begin;
  u32 allowed_count;
  u32 suppressed_begin;
  u32 suppressed_count;
  float repetition_penalty;
  float presence_penalty;
  float frequency_penalty;
  u32 seen_begin;
  u32 seen_count;
  u32 bias_begin;
  u32 bias_count;
  u32 num_top;
};
struct SampleSeen {
  i32 id;
  i32 answer_count;
};
struct SampleBias {
  i32 id;
  float value;
};

/// Of both kernels.
struct SampleParams {
  u32 vocab;
  u32 num_segments;
  u32 max_top;     // words that a row of top_ids has room for; 0 = there are none
  u32 loads_four;  // whether rows begin at multiples of 16 bytes
};

/// What is known of a segment.
struct SampleSegment {
  float largest;
  float total;  // of e^(logit - largest)
  float drawn;  // of the same at the row's temperature
  u32 first;    // the lowest id of the largest logit
};

GPU_FN bool changes_logits(const GPU_GLOBAL SampleRow* row) {
  return row->allowed_count + row->suppressed_count + row->seen_count + row->bias_count > 0;
}

/// How a row is drawn from.
struct SampleMode {
  bool draws;  // or takes the likeliest word
  bool cuts;   // by top-k, top-p or min-p
  u32 top_k;   // 0 = all words
  float top_p;
  float min_p;
  float scale;  // powers of two of a logit: log2(e) / temperature
};
GPU_FN SampleMode mode_of(const GPU_GLOBAL SampleRow* row, u32 vocab) {
  SampleMode mode;
  mode.draws = row->temperature > 0;
  mode.top_k = row->top_k < vocab ? row->top_k : 0;
  mode.top_p = row->top_p;
  mode.min_p = row->min_p > 0 ? gpu_min(row->min_p, 1.0f) : 0.0f;
  mode.cuts = mode.draws && (mode.top_k > 0 || mode.top_p < 1.0f || mode.min_p > 0);
  mode.scale = mode.draws ? 1.44269504f / row->temperature : 1.44269504f;
  return mode;
}

/// One row: logits after the changes, and what a word counts.
struct SampleWords {
  const GPU_GLOBAL float* logits;
  const GPU_GLOBAL float* group_largest;  // [num_segments, kSegmentGroups]
  u32 vocab;
  u32 num_segments;
  bool loads_four;  // as of SampleParams
  float largest;
  float scale;
};
/// How far a word is from the likeliest, in powers of two; NaN for NaN.
GPU_FN float distance(SampleWords words, float logit) {
  return (words.largest - logit) * words.scale;
}
/// Relative to the likeliest word; NaN and -infinity count nothing.
GPU_FN float relative_mass(float distance) { return gpu_max(gpu_exp2_flushed(-distance), 0.0f); }
GPU_FN u32 whole_mass(float mass) { return static_cast<u32>(gpu_fma(mass, 2147483648.0f, 0.5f)); }

/// The sum of `value` over the lanes before this one.
template <class T>
GPU_FN T sum_before(Thread t, T value) {
  T sum = value;
  GPU_UNROLL
  for (u32 step = 1; step < kWarpSize; step *= 2) {
    const T left = shuffle(t, sum, (t.lane - step) & (kWarpSize - 1));
    if (t.lane >= step) sum += left;
  }
  return sum - value;
}

}  // namespace kernels
}  // namespace fovea
