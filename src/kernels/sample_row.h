#pragma once

// What the sampler's three kernels share: tables, segments of a row, and what a word counts.
//
// A row of logits is cut into segments. sample_scan, a warp for each, finds their largest logits
// and sums the softmax. sample_weigh then knows the row's largest logit: it sums what the words of
// a segment count in the draw, and lists those that can survive top-k and top-p or be among the top
// words. sample_choose, a block for each row, sees sums and lists alone: it cuts and draws.
//
// Probabilities are whole numbers, of 2^-31 of the likeliest word. Their sums are exact, so that
// the answer does not depend on the number of threads or on the order in which they add.

#include "common.h"

namespace fovea {
namespace kernels {

constexpr GPU_CONST u32 kSegmentWords = 1024;
constexpr GPU_CONST u32 kLaneWords = kSegmentWords / kWarpSize;  // of a segment
constexpr GPU_CONST u32 kSegmentList =
    256;  // listed words; of a segment with more, all are looked at
constexpr GPU_CONST u32 kSampleBuckets = 1024;
constexpr GPU_CONST float kSampleReach = 32.0f;  // powers of two: words further off count nothing

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

/// Of all three kernels.
struct SampleParams {
  u32 vocab;
  u32 num_segments;
  u32 max_top;  // words that a row of top_ids has room for; 0 = there are none
  u32 pad0_;
};

/// What is known of a segment.
struct SampleSegment {
  float largest;
  float total;  // of e^(logit - largest)
  u32 first;    // the lowest id of the largest logit
  u32 count;    // of listed words, see kSegmentList; this and what follows is of sample_weigh
  u64 mass;     // of its words in the draw, those less likely than min_p left out if nothing cuts
};
/// How far from the likeliest the words of a row may be, in powers of two, to be listed.
struct SampleReach {
  float drawn;  // may survive top-k and top-p
  float top;    // may be among the top words
};
/// A listed word: its logit and its id.
GPU_FN u64 listed_word(float logit, u32 id) { return (static_cast<u64>(as_u32(logit)) << 32) | id; }
GPU_FN u64 rank_of_listed(u64 word) {
  return ranked(as_f32(static_cast<u32>(word >> 32)), static_cast<u32>(word));
}

GPU_FN bool changes_logits(const GPU_GLOBAL SampleRow* row) {
  return row->allowed_count + row->suppressed_count + row->seen_count + row->bias_count > 0;
}

/// How a row is drawn from.
struct SampleMode {
  bool draws;  // or takes the likeliest word
  bool cuts;   // by top-k or top-p
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
  mode.cuts = mode.draws && (mode.top_k > 0 || mode.top_p < 1.0f);
  mode.min_p = row->min_p > 0 ? gpu_min(row->min_p, 1.0f) : 0.0f;
  mode.scale = mode.draws ? 1.44269504f / row->temperature : 1.44269504f;
  return mode;
}

/// One row: logits after the changes, and what a word counts.
struct SampleWords {
  const GPU_GLOBAL float* logits;
  const GPU_GLOBAL SampleSegment* segments;
  const GPU_GLOBAL u64* listed;  // [num_segments, kSegmentList]
  u32 vocab;
  u32 num_segments;
  float largest;
  float scale;
};
/// How far a word is from the likeliest, in powers of two; NaN for NaN.
GPU_FN float distance(SampleWords words, float logit) {
  return (words.largest - logit) * words.scale;
}
/// Relative to the likeliest word; NaN and -infinity count nothing.
GPU_FN float relative_mass(float distance) { return gpu_max(gpu_exp2(-distance), 0.0f); }
GPU_FN u32 whole_mass(float mass) { return static_cast<u32>(gpu_fma(mass, 2147483648.0f, 0.5f)); }

/// Sums over a row's segments, the same in every warp.
struct SampleTotals {
  float largest;
  float total;  // of e^(logit - largest)
};
GPU_FN SampleTotals total_segments(Thread t, const GPU_GLOBAL SampleSegment* segments, u32 count) {
  SampleTotals all;
  all.largest = as_f32(0xff800000u);
  for (u32 i = t.lane; i < count; i += kWarpSize) {
    all.largest = gpu_max(all.largest, segments[i].largest);
  }
  all.largest = warp_max(t, all.largest);
  all.total = 0;
  for (u32 i = t.lane; i < count; i += kWarpSize) {
    const float away = (all.largest - segments[i].largest) * 1.44269504f;
    all.total = gpu_fma(segments[i].total, relative_mass(away), all.total);
  }
  all.total = warp_sum(t, all.total);
  return all;
}

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

// ---- buckets of words by their distance from the likeliest

/// Buckets from 0 to `reach` powers of two.
struct SampleRuler {
  float reach;
  float per_unit;
};
GPU_FN SampleRuler ruler_to(float reach) {
  SampleRuler ruler;
  ruler.reach = reach;
  ruler.per_unit = static_cast<float>(kSampleBuckets) / reach;
  return ruler;
}
GPU_FN u32 bucket_of(SampleRuler ruler, float distance) {
  const u32 bucket = static_cast<u32>(distance * ruler.per_unit);
  return bucket < kSampleBuckets ? bucket : kSampleBuckets - 1;
}

}  // namespace kernels
}  // namespace fovea
