#pragma once

// The sampler's first two kernels: what is to be known of each segment of a row. A warp for each
// segment, whose words stay in its registers.

#include "sample_row.h"

namespace fovea {
namespace kernels {

constexpr GPU_CONST u32 kWeighScratchBytes = 4 * kSampleBuckets;

/// A segment's words lane, lane + 32, lane + 64, ...; NaN behind the row's end.
struct SegmentLogits {
  float value[kLaneWords];
};
GPU_FN SegmentLogits load_segment(Thread t, const GPU_GLOBAL float* logits, u32 vocab,
                                  u32 segment) {
  SegmentLogits loaded;
  const u32 begin = segment * kSegmentWords + t.lane;
  const GPU_GLOBAL float* own = logits + begin;
  if ((segment + 1) * kSegmentWords <= vocab) {
    GPU_UNROLL
    for (u32 j = 0; j < kLaneWords; ++j) loaded.value[j] = own[j * kWarpSize];
  } else {
    GPU_UNROLL
    for (u32 j = 0; j < kLaneWords; ++j) {
      loaded.value[j] = begin + j * kWarpSize < vocab ? own[j * kWarpSize] : as_f32(0x7fc00000u);
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
/// `changed` [rows, vocab], the segments, and the largest logit of every lane
/// [rows, num_segments, kWarpSize].
GPU_FN void sample_scan(Thread t, const GPU_CONST SampleParams& p, const GPU_GLOBAL float* logits,
                        const GPU_GLOBAL SampleRow* rows, const GPU_GLOBAL i32* mask_ids,
                        const GPU_GLOBAL SampleSeen* seen, const GPU_GLOBAL SampleBias* biases,
                        GPU_GLOBAL float* changed, GPU_GLOBAL SampleSegment* segments,
                        GPU_GLOBAL float* lane_largest, GPU_SHARED char*) {
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
  const SegmentLogits logit = load_segment(t, words, p.vocab, segment);
  float own_largest = as_f32(0xff800000u);
  GPU_UNROLL
  for (u32 j = 0; j < kLaneWords; ++j) own_largest = gpu_max(own_largest, logit.value[j]);
  const float largest = warp_max(t, own_largest);
  u32 first = kSegmentWords;
  float total = 0;
  GPU_UNROLL
  for (u32 i = 0; i < kLaneWords; ++i) {
    const u32 j = kLaneWords - 1 - i;
    if (logit.value[j] == largest) first = j * kWarpSize + t.lane;
    total += relative_mass((largest - logit.value[j]) * 1.44269504f);
  }
  total = warp_sum(t, total);
  first = kSegmentWords - static_cast<u32>(warp_max(t, static_cast<u64>(kSegmentWords - first)));
  const u64 place = static_cast<u64>(t.block.y) * p.num_segments + segment;
  lane_largest[place * kWarpSize + t.lane] = own_largest;
  if (t.lane == 0) {
    segments[place].largest = largest;
    segments[place].total = total;
    segments[place].first = segment * kSegmentWords + first;
  }
}

/// How far the `number` likeliest words may be: at least as far as the largest words of so many
/// lanes are. Infinitely when fewer are within kSampleReach. counts: [kSampleBuckets].
GPU_FN float reach_of_number(Thread t, SampleWords words, const GPU_GLOBAL float* lane_largest,
                             u32 number, GPU_SHARED u32* counts) {
  constexpr u32 kEach = kSampleBuckets / kWarpSize;
  const u32 num_threads = t.num_warps * kWarpSize;
  const SampleRuler ruler = ruler_to(kSampleReach);
  for (u32 b = t.index; b < kSampleBuckets; b += num_threads) counts[b] = 0;
  block_sync(t);
  for (u32 i = t.index; i < words.num_segments * kWarpSize; i += num_threads) {
    const float away = distance(words, lane_largest[i]);
    if (away <= ruler.reach) atomic_add_u32(counts + bucket_of(ruler, away), 1);
  }
  block_sync(t);
  u32 own = 0;
  for (u32 j = 0; j < kEach; ++j) {
    // Lanes start at different places, so that they meet in different banks.
    own += counts[t.lane * kEach + ((j + t.lane) & (kEach - 1))];
  }
  const u32 before = sum_before(t, own);
  const u32 lane = first_lane(t, before + own >= number);
  if (lane == kWarpSize) return as_f32(0x7f800000u);
  const u32 count = counts[lane * kEach + t.lane];
  const u32 up_to = shuffle(t, before, lane) + sum_before(t, count) + count;
  const u32 bucket = lane * kEach + first_lane(t, up_to >= number);
  return static_cast<float>(bucket + 2) / ruler.per_unit;  // rounding stays inside
}

/// How far the words may be that top-p keeps: what lies further, if it were the whole vocabulary,
/// is half of what top-p drops. `total` is of e^(logit - largest); the total at the row's
/// temperature is at least what follows from it, and what the largest words of the segments make.
GPU_FN float reach_of_top_p(Thread t, SampleWords words, float total, float top_p) {
  float least = 0;
  for (u32 i = t.lane; i < words.num_segments; i += kWarpSize) {
    least += relative_mass(distance(words, words.segments[i].largest));
  }
  least = warp_sum(t, least);
  // Colder: the mean of a power is at least the power of the mean. Warmer: every word counts more.
  const float vocab = static_cast<float>(words.vocab);
  const float power = words.scale * 0.693147181f;
  const float implied =
      power > 1.0f ? vocab * gpu_exp2(power * 1.44269504f * gpu_log(total / vocab)) : total;
  const float dropped = (1.0f - gpu_max(top_p, 0.0f)) * gpu_max(least, implied);
  const float reach = 1.0f + 1.44269504f * gpu_log(vocab / dropped);
  return gpu_min(kSampleReach, gpu_max(reach, 0.03125f));
}

/// Blocks as sample_scan's. Sums and lists the words of each segment of the rows that draw or ask
/// for top words; `listed` is [rows, num_segments, kSegmentList] and `reaches` [rows].
GPU_FN void sample_weigh(Thread t, const GPU_CONST SampleParams& p, const GPU_GLOBAL float* logits,
                         const GPU_GLOBAL SampleRow* rows, const GPU_GLOBAL float* changed,
                         const GPU_GLOBAL float* lane_largest, GPU_GLOBAL SampleSegment* segments,
                         GPU_GLOBAL u64* listed, GPU_GLOBAL SampleReach* reaches,
                         GPU_SHARED char* scratch) {
  const GPU_GLOBAL SampleRow* row = rows + t.block.y;
  const SampleMode mode = mode_of(row, p.vocab);
  const u32 num_top = row->num_top;
  if (!mode.draws && num_top == 0) return;
  const u64 first_segment = static_cast<u64>(t.block.y) * p.num_segments;
  SampleWords words;
  words.logits = (changes_logits(row) ? changed : logits) + static_cast<u64>(t.block.y) * p.vocab;
  words.segments = segments + first_segment;
  words.listed = listed;
  words.vocab = p.vocab;
  words.num_segments = p.num_segments;
  words.scale = mode.scale;
  const u32 segment = t.block.x * t.num_warps + t.warp;
  const SegmentLogits logit = load_segment(t, words.logits, p.vocab, segment);
  const SampleTotals all = total_segments(t, words.segments, p.num_segments);
  if (!is_finite(all.largest)) return;
  words.largest = all.largest;
  const bool lists = mode.cuts || num_top > 0;
  float reach = 0;
  if (lists) {
    const u32 top_k = mode.cuts ? mode.top_k : 0;
    SampleReach far;
    far.drawn = 0;
    far.top = 0;
    if (top_k > 0 || num_top > 0) {
      const u32 number = top_k > num_top ? top_k : num_top;
      const float of_number = reach_of_number(t, words, lane_largest + first_segment * kWarpSize,
                                              number, reinterpret_cast<GPU_SHARED u32*>(scratch));
      if (num_top > 0) far.top = of_number;
      if (top_k > 0) far.drawn = gpu_min(of_number, kSampleReach);
    }
    if (mode.cuts && top_k == 0) far.drawn = reach_of_top_p(t, words, all.total, mode.top_p);
    if (t.block.x == 0 && t.index == 0) reaches[t.block.y] = far;
    reach = gpu_max(far.drawn, far.top);
  }
  if (segment >= p.num_segments) return;
  const float least = mode.cuts ? 0.0f : mode.min_p;
  u64 mass = 0;
  u32 near = 0;  // a bit for each word
  GPU_UNROLL
  for (u32 j = 0; j < kLaneWords; ++j) {
    const float away = distance(words, logit.value[j]);
    const float share = relative_mass(away);
    mass += share < least ? 0 : whole_mass(share);
    near |= is_finite(logit.value[j]) && away <= reach ? 1u << j : 0u;
  }
  mass = warp_sum(t, mass);
  const u32 own = count_bits(near);
  const u32 before = sum_before(t, own);
  const u32 count = shuffle(t, before + own, kWarpSize - 1);
  const u64 place = first_segment + segment;
  if (t.lane == 0) {
    segments[place].mass = mass;
    segments[place].count = count;
  }
  if (!lists || count > kSegmentList) return;
  GPU_GLOBAL u64* next = listed + place * kSegmentList + before;
  const u32 first = segment * kSegmentWords + t.lane;
  GPU_UNROLL
  for (u32 j = 0; j < kLaneWords; ++j) {
    if ((near >> j & 1u) == 0) continue;
    *next = listed_word(logit.value[j], first + j * kWarpSize);
    ++next;
  }
}

}  // namespace kernels
}  // namespace fovea
