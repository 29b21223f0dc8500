#pragma once

// The sampler's first kernel: what is to be known of each segment of a row. A warp for each
// segment, whose words stay in its registers.

#include "sample_row.h"

namespace fovea {
namespace kernels {

/// A lane's words of a segment: four side by side of each 128; NaN behind the row's end.
struct SegmentLogits {
  float value[kLaneWords];
};
GPU_FN u32 lane_word(Thread t, u32 i) { return i / 4 * 4 * kWarpSize + t.lane * 4 + i % 4; }
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

// The changed logits of ids [begin, end) of a row in `changed`. Threads work on words of their own
// between barriers.
GPU_FN void change_logits(Thread t, const GPU_GLOBAL SampleRow* row, u32 begin, u32 end,
                          const GPU_GLOBAL float* logits, const GPU_GLOBAL i32* mask_ids,
                          const GPU_GLOBAL SampleSeen* seen, const GPU_GLOBAL SampleBias* biases,
                          GPU_GLOBAL float* changed) {
  const u32 num_threads = t.num_warps * kWarpSize;
  const u32 count = end - begin;
  const float impossible = as_f32(0xff800000u);
  const bool is_limited = row->allowed_count > 0;
  for (u32 i = begin + t.index; i < end; i += num_threads) {
    changed[i] = is_limited ? impossible : logits[i];
  }
  block_sync_global(t);
  for (u32 i = t.index; i < row->allowed_count; i += num_threads) {
    const u32 id = static_cast<u32>(mask_ids[row->allowed_begin + i]);
    if (id - begin < count) changed[id] = logits[id];  // an id may come twice: the same is written
  }
  block_sync_global(t);
  for (u32 i = t.index; i < row->seen_count; i += num_threads) {
    const SampleSeen word = seen[row->seen_begin + i];
    const u32 id = static_cast<u32>(word.id);
    if (id - begin >= count) continue;
    float logit = changed[id];
    logit = logit > 0 ? logit / row->repetition_penalty : logit * row->repetition_penalty;
    if (word.answer_count > 0) logit -= row->presence_penalty;
    changed[id] = logit - row->frequency_penalty * static_cast<float>(word.answer_count);
  }
  block_sync_global(t);
  for (u32 i = t.index; i < row->bias_count; i += num_threads) {
    const SampleBias bias = biases[row->bias_begin + i];
    if (static_cast<u32>(bias.id) - begin < count) changed[bias.id] += bias.value;
  }
  block_sync_global(t);
  for (u32 i = t.index; i < row->suppressed_count; i += num_threads) {
    const u32 id = static_cast<u32>(mask_ids[row->suppressed_begin + i]);
    if (id - begin < count) changed[id] = impossible;
  }
  block_sync_global(t);
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
  const u32 first_segment = t.block.x * t.num_warps;
  const GPU_GLOBAL float* words = logits + first_word;
  if (changes_logits(row)) {
    const u32 begin = first_segment * kSegmentWords, most = t.num_warps * kSegmentWords;
    const u32 end = p.vocab - begin < most ? p.vocab : begin + most;
    change_logits(t, row, begin, end, words, mask_ids, seen, biases, changed + first_word);
    words = changed + first_word;
  }
  const u32 segment = first_segment + t.warp;
  if (segment >= p.num_segments) return;
  const SegmentLogits logit = load_segment(t, words, p.vocab, p.loads_four != 0, segment);
  const SampleMode mode = mode_of(row, p.vocab);
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
  const u64 place = static_cast<u64>(t.block.y) * p.num_segments + segment;
  group_largest[place * kSegmentGroups + t.lane % 8 * 4 + t.lane / 8] = own_group;
  if (t.lane == 0) {
    SampleSegment known;
    known.largest = largest;
    known.total = total;
    known.drawn = drawn;
    known.first = segment * kSegmentWords + first;
    segments[place] = known;
  }
}

}  // namespace kernels
}  // namespace fovea
