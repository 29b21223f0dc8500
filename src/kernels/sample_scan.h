#pragma once

// The sampler's first kernel: what is to be known of each segment of a row. A warp for each
// segment, whose words stay in its registers.

#include "sample_row.h"

namespace fovea {
namespace kernels {

/// A lane's words of a segment; NaN behind the row's end.
struct SegmentLogits {
  float value[kLaneWords];
};
GPU_FN SegmentLogits load_segment(Thread t, const GPU_GLOBAL float* logits, u32 vocab,
                                  bool loads_four, u32 segment) {
  SegmentLogits loaded;
  const u32 begin = segment * kSegmentWords;
  if (loads_four && begin + kSegmentWords <= vocab) {
    GPU_UNROLL
    for (u32 i = 0; i < kLaneWords; i += 4) {
      const Float4 four = load_4(logits + begin + lane_word(t, i));
      GPU_UNROLL
      for (u32 j = 0; j < 4; ++j) loaded.value[i + j] = four.value[j];
    }
  } else {
    GPU_UNROLL
    for (u32 i = 0; i < kLaneWords; ++i) {
      const u32 id = begin + lane_word(t, i);
      loaded.value[i] = id < vocab ? logits[id] : as_f32(0x7fc00000u);
    }
  }
  return loaded;
}

/// Words of a row whose logits change, and how.
struct AllowedWords {
  const GPU_GLOBAL i32* ids;
  u32 count;
};
struct SuppressedWords {
  const GPU_GLOBAL i32* ids;
  u32 count;
};
struct SeenWords {
  const GPU_GLOBAL SampleSeen* words;
  u32 count;
  float repetition, presence, frequency;
};
struct BiasedWords {
  const GPU_GLOBAL SampleBias* words;
  u32 count;
};
GPU_FN i32 id_of(AllowedWords words, u32 i) { return words.ids[i]; }
GPU_FN i32 id_of(SuppressedWords words, u32 i) { return words.ids[i]; }
GPU_FN i32 id_of(SeenWords words, u32 i) { return words.words[i].id; }
GPU_FN i32 id_of(BiasedWords words, u32 i) { return words.words[i].id; }
GPU_FN float changed_logit(AllowedWords, u32, float, float original) { return original; }
GPU_FN float changed_logit(SuppressedWords, u32, float, float) { return as_f32(0xff800000u); }
GPU_FN float changed_logit(SeenWords words, u32 i, float logit, float) {
  const i32 count = words.words[i].answer_count;
  logit = logit > 0 ? logit / words.repetition : logit * words.repetition;
  if (count > 0) logit -= words.presence;
  return logit - words.frequency * static_cast<float>(count);
}
GPU_FN float changed_logit(BiasedWords words, u32 i, float logit, float) {
  return logit + words.words[i].value;
}

// A segment's logits after the changes of one list, by one warp: each lane looks at a word of the
// list, and those that lie in the segment have their turn. `original` is the row.
template <class Words>
GPU_FN SegmentLogits change_words(Thread t, Words words, const GPU_GLOBAL float* original,
                                  u32 vocab, u32 segment, SegmentLogits logit) {
  const u32 begin = segment * kSegmentWords;
  for (u32 base = 0; base < words.count; base += kWarpSize) {
    const u32 id =
        base + t.lane < words.count ? static_cast<u32>(id_of(words, base + t.lane)) : vocab;
    u32 lanes = lanes_where(t, id < vocab && id - begin < kSegmentWords);
    while (lanes != 0) {
      const u32 lane = lowest_bit(lanes);
      lanes &= lanes - 1;
      const u32 word = shuffle(t, id, lane) - begin;
      if (word / 4 % kWarpSize != t.lane) continue;
      const u32 own = word / (4 * kWarpSize) * 4 + word % 4;
      float before = 0;
      GPU_UNROLL
      for (u32 i = 0; i < kLaneWords; ++i) before = i == own ? logit.value[i] : before;
      const float after = changed_logit(words, base + lane, before, original[begin + word]);
      GPU_UNROLL
      for (u32 i = 0; i < kLaneWords; ++i) logit.value[i] = i == own ? after : logit.value[i];
    }
  }
  return logit;
}

// All changes of a row's segment, in the order that fovea::SamplingRow tells; written to `changed`.
GPU_FN SegmentLogits change_segment(Thread t, const GPU_GLOBAL SampleRow* row, u32 vocab,
                                    u32 segment, const GPU_GLOBAL float* original,
                                    const GPU_GLOBAL i32* mask_ids,
                                    const GPU_GLOBAL SampleSeen* seen,
                                    const GPU_GLOBAL SampleBias* biases, GPU_GLOBAL float* changed,
                                    SegmentLogits logit) {
  const u32 begin = segment * kSegmentWords;
  if (row->allowed_count > 0) {
    GPU_UNROLL
    for (u32 i = 0; i < kLaneWords; ++i) {
      if (begin + lane_word(t, i) < vocab) logit.value[i] = as_f32(0xff800000u);
    }
    const AllowedWords allowed = {mask_ids + row->allowed_begin, row->allowed_count};
    logit = change_words(t, allowed, original, vocab, segment, logit);
  }
  const SeenWords seen_words = {seen + row->seen_begin, row->seen_count, row->repetition_penalty,
                                row->presence_penalty, row->frequency_penalty};
  logit = change_words(t, seen_words, original, vocab, segment, logit);
  const BiasedWords biased = {biases + row->bias_begin, row->bias_count};
  logit = change_words(t, biased, original, vocab, segment, logit);
  const SuppressedWords suppressed = {mask_ids + row->suppressed_begin, row->suppressed_count};
  logit = change_words(t, suppressed, original, vocab, segment, logit);
  GPU_UNROLL
  for (u32 i = 0; i < kLaneWords; ++i) {
    const u32 id = begin + lane_word(t, i);
    if (id < vocab) changed[id] = logit.value[i];
  }
  return logit;
}

// What is to be known of a segment, whose largest logit is `largest`; the sums over all lanes.
GPU_FN SampleSegment sum_segment(Thread t, SampleMode mode, SegmentLogits logit, u32 segment,
                                 float largest) {
  u32 first = kSegmentWords;
  float total = 0;
  GPU_UNROLL
  for (u32 j = 0; j < kLaneWords; ++j) {
    const u32 i = kLaneWords - 1 - j;
    if (logit.value[i] == largest) first = lane_word(t, i);
    total += relative_mass((largest - logit.value[i]) * 1.44269504f);
  }
  float drawn = total;
  if (mode.draws && mode.top_k == 0 && mode.scale != 1.44269504f) {
    drawn = 0;
    GPU_UNROLL
    for (u32 i = 0; i < kLaneWords; ++i) {
      drawn += relative_mass((largest - logit.value[i]) * mode.scale);
    }
    drawn = warp_sum(t, drawn);
  }
  total = warp_sum(t, total);
  if (mode.scale == 1.44269504f) drawn = total;
  first = kSegmentWords - static_cast<u32>(warp_max(t, static_cast<u64>(kSegmentWords - first)));
  SampleSegment known;
  known.largest = largest;
  known.total = total;
  known.drawn = drawn;
  known.first = segment * kSegmentWords + first;
  return known;
}

// The segment's largest logit; a lane's share of the largest of its groups to `group_largest`.
GPU_FN float find_largest(Thread t, SegmentLogits logit, GPU_GLOBAL float* group_largest) {
  // Eight lanes hold four groups: one of each eight of a lane's words is of the same group as the
  // lane's neighbours'. Each lane keeps the group that it will write.
  float own_group = 0, largest = as_f32(0xff800000u);
  GPU_UNROLL
  for (u32 i = 0; i < kLaneWords; i += 4) {
    float of_group = gpu_max(gpu_max(logit.value[i], logit.value[i + 1]),
                             gpu_max(logit.value[i + 2], logit.value[i + 3]));
    GPU_UNROLL
    for (u32 mask = 1; mask < 8; mask *= 2) {
      of_group = gpu_max(of_group, shuffle_xor(t, of_group, mask));
    }
    if (t.lane % 8 == i / 4) own_group = of_group;
    largest = gpu_max(largest, of_group);
  }
  largest = gpu_max(largest, shuffle_xor(t, largest, 8));
  largest = gpu_max(largest, shuffle_xor(t, largest, 16));
  group_largest[t.lane % 8 * 4 + t.lane / 8] = own_group;
  return largest;
}

/// Block (x, row), segments x * num_warps and on. Writes the logits of rows that change them to
/// `changed` [rows, vocab], the segments, and the largest logit of each group of words
/// [rows, num_segments, kSegmentGroups].
GPU_FN void sample_scan(Thread t, const GPU_CONST SampleParams& p, const GPU_GLOBAL float* logits,
                        const GPU_GLOBAL SampleRow* rows, const GPU_GLOBAL i32* mask_ids,
                        const GPU_GLOBAL SampleSeen* seen, const GPU_GLOBAL SampleBias* biases,
                        GPU_GLOBAL float* changed, GPU_GLOBAL SampleSegment* segments,
                        GPU_GLOBAL float* group_largest, GPU_SHARED char*) {
  const GPU_GLOBAL SampleRow* row = rows + t.block.y;
  const u64 first_word = static_cast<u64>(t.block.y) * p.vocab;
  const u32 segment = t.block.x * t.num_warps + t.warp;
  if (segment >= p.num_segments) return;
  SegmentLogits logit = load_segment(t, logits + first_word, p.vocab, p.loads_four != 0, segment);
  if (changes_logits(row)) {
    logit = change_segment(t, row, p.vocab, segment, logits + first_word, mask_ids, seen, biases,
                           changed + first_word, logit);
  }
  const u64 place = static_cast<u64>(t.block.y) * p.num_segments + segment;
  const float largest = find_largest(t, logit, group_largest + place * kSegmentGroups);
  const SampleSegment known = sum_segment(t, mode_of(row, p.vocab), logit, segment, largest);
  if (t.lane == 0) segments[place] = known;
}

}  // namespace kernels
}  // namespace fovea
