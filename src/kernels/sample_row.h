#pragma once

// What the sampler is told of a row of logits, and what a word counts.
//
// What a word counts in the draw is a whole number, of 2^-31 of the likeliest word. Sums of these
// are exact, so that the answer does not depend on the number of threads or on the order in which
// they add.

#include "common.h"

namespace fovea {
namespace kernels {

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

struct SampleParams {
  u32 vocab;
  u32 num_segments;  // of a row
  u32 num_blocks;    // of a row: a cluster
  u32 max_top;       // words that a row of top_ids has room for; 0 = there are none
  u32 loads_four;    // whether rows begin at multiples of 16 bytes
  u32 pad0_, pad1_, pad2_;
};

GPU_FN bool changes_logits(const GPU_GLOBAL SampleRow* row) {
  return row->allowed_count + row->suppressed_count + row->seen_count + row->bias_count > 0;
}

/// How a row is drawn from.
struct SampleMode {
  bool draws;      // or takes the likeliest word
  bool cuts;       // by top-k, top-p or min-p
  bool lists_top;  // there is room for the likeliest words
  u32 top_k;       // 0 = all words
  float top_p;
  float min_p;
  float scale;  // powers of two of a logit: log2(e) / temperature
};
GPU_FN SampleMode mode_of(const GPU_GLOBAL SampleRow* row, const GPU_CONST SampleParams& p) {
  SampleMode mode;
  // With less, a logit's distance would not be a number.
  mode.draws = row->temperature > 0 && is_finite(1.44269504f / row->temperature);
  mode.top_k = row->top_k < p.vocab ? row->top_k : 0;
  mode.lists_top = p.max_top > 0;
  mode.top_p = row->top_p;
  mode.min_p = row->min_p > 0 ? gpu_min(row->min_p, 1.0f) : 0.0f;
  mode.cuts = mode.draws && (mode.top_k > 0 || mode.top_p < 1.0f || mode.min_p > 0);
  mode.scale = mode.draws ? 1.44269504f / row->temperature : 1.44269504f;
  return mode;
}

/// Whether words of the row are looked for by their logits.
GPU_FN bool searches(SampleMode mode) {
  return mode.lists_top || (mode.draws && (mode.top_k > 0 || mode.top_p < 1.0f));
}

/// How far words of a row are from its likeliest.
struct SampleMeasure {
  float largest;
  float scale;  // as of SampleMode
};
/// In powers of two.
GPU_FN float distance(SampleMeasure measure, float logit) {
  return (measure.largest - logit) * measure.scale;
}
/// Relative to the likeliest word.
GPU_FN float relative_mass(float distance) { return gpu_exp2_flushed(-distance); }
GPU_FN u32 whole_mass(float mass) { return static_cast<u32>(gpu_fma(mass, 2147483648.0f, 0.5f)); }
/// What a word counts in the draw, if it stays.
GPU_FN u32 drawn_mass(float away, float min_p) {
  const float mass = relative_mass(away);
  return mass < min_p ? 0 : whole_mass(mass);
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

}  // namespace kernels
}  // namespace fovea
