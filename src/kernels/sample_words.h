#pragma once

// A row's words: where they lie, the changes to their logits, and what is known of all of them.
//
// A row is cut into segments of 1024 words. The blocks of its cluster share them out, and a block's
// warps take them in turns: nobody but its warp touches a segment.

#include "sample_row.h"

namespace fovea {
namespace kernels {

constexpr GPU_CONST u32 kSegmentWords = 1024;
constexpr GPU_CONST u32 kSegmentStep = 4 * kWarpSize;  // words that a warp takes at once
constexpr GPU_CONST u32 kSegmentSteps = kSegmentWords / kSegmentStep;

/// The segments of a block, after the changes. Floats: a pointer to shared memory, or, for rows
/// that do not fit there, to memory of the row's own.
template <class Floats>
struct SampleWords {
  // [end_segment - first_segment, kSegmentWords]; -infinity for NaN and behind the row's end
  Floats logits;
  u32 first_segment;
  u32 end_segment;
};
template <class Floats>
GPU_FN Floats words_of_segment(SampleWords<Floats> words, u32 segment) {
  return words.logits + (segment - words.first_segment) * kSegmentWords;
}
/// A lane's four words of a segment's step.
template <class Floats>
GPU_FN Float4 load_words(Thread t, SampleWords<Floats> words, u32 segment, u32 step) {
  return load_4(words_of_segment(words, segment) + step * kSegmentStep + 4 * t.lane);
}
/// The id of the first of them.
GPU_FN u32 first_id(Thread t, u32 segment, u32 step) {
  return segment * kSegmentWords + step * kSegmentStep + 4 * t.lane;
}
/// Where in its segment one of all words of a lane is.
GPU_FN u32 word_at(Thread t, u32 word) { return word / 4 * kSegmentStep + 4 * t.lane + word % 4; }

/// A segment in its lanes' registers.
struct SegmentLogits {
  Float4 of_step[kSegmentSteps];
};
template <class Floats>
GPU_FN SegmentLogits load_segment(Thread t, SampleWords<Floats> words, u32 segment) {
  SegmentLogits loaded;
  GPU_UNROLL
  for (u32 step = 0; step < kSegmentSteps; ++step) {
    loaded.of_step[step] = load_words(t, words, segment, step);
  }
  return loaded;
}
template <class Floats>
GPU_FN void store_segment(Thread t, SampleWords<Floats> words, u32 segment, SegmentLogits logits) {
  GPU_UNROLL
  for (u32 step = 0; step < kSegmentSteps; ++step) {
    store_4(words_of_segment(words, segment) + step * kSegmentStep + 4 * t.lane,
            logits.of_step[step]);
  }
}
/// From the row, before the changes; the segment may lie behind its end.
GPU_FN SegmentLogits original_segment(Thread t, const GPU_GLOBAL float* row, u32 vocab,
                                      bool loads_four, u32 segment) {
  SegmentLogits loaded;
  const bool is_whole = loads_four && (segment + 1) * kSegmentWords <= vocab;
  GPU_UNROLL
  for (u32 step = 0; step < kSegmentSteps; ++step) {
    const u32 id = first_id(t, segment, step);
    if (is_whole) {
      loaded.of_step[step] = load_4(row + id);
    } else {
      GPU_UNROLL
      for (u32 j = 0; j < 4; ++j) {
        loaded.of_step[step].value[j] = id + j < vocab ? row[id + j] : as_f32(0xff800000u);
      }
    }
  }
  return loaded;
}

/// The same with -infinity for NaN.
GPU_FN SegmentLogits without_nan(SegmentLogits logits) {
  GPU_UNROLL
  for (u32 i = 0; i < kSegmentWords / kWarpSize; ++i) {
    const float logit = logits.of_step[i / 4].value[i % 4];
    logits.of_step[i / 4].value[i % 4] = gpu_max(logit, as_f32(0xff800000u));
  }
  return logits;
}

// ---- changes

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

// The changes of one list to one segment: each lane looks at a word of the list, and those that lie
// in the segment have their turn. `original` is the row.
template <class List, class Floats>
GPU_FN void change_words(Thread t, List list, const GPU_GLOBAL float* original, u32 vocab,
                         SampleWords<Floats> words, u32 segment) {
  const u32 begin = segment * kSegmentWords;
  Floats logits = words_of_segment(words, segment);
  for (u32 base = 0; base < list.count; base += kWarpSize) {
    const u32 id =
        base + t.lane < list.count ? static_cast<u32>(id_of(list, base + t.lane)) : vocab;
    u32 lanes = lanes_where(t, id < vocab && id - begin < kSegmentWords);
    while (lanes != 0) {
      const u32 lane = lowest_bit(lanes);
      lanes &= lanes - 1;
      if (t.lane == lane) {
        logits[id - begin] = changed_logit(list, base + lane, logits[id - begin], original[id]);
      }
      warp_sync(t);
    }
  }
}

/// All changes to a segment, in the order that fovea::SamplingRow tells.
template <class Floats>
GPU_FN void change_segment(Thread t, const GPU_GLOBAL SampleRow* row, u32 vocab,
                           const GPU_GLOBAL float* original, const GPU_GLOBAL i32* mask_ids,
                           const GPU_GLOBAL SampleSeen* seen, const GPU_GLOBAL SampleBias* biases,
                           SampleWords<Floats> words, u32 segment) {
  if (row->allowed_count > 0) {
    for (u32 i = t.lane; i < kSegmentWords; i += kWarpSize) {
      const bool is_word = segment * kSegmentWords + i < vocab;
      if (is_word) words_of_segment(words, segment)[i] = as_f32(0xff800000u);
    }
    warp_sync(t);
    const AllowedWords allowed = {mask_ids + row->allowed_begin, row->allowed_count};
    change_words(t, allowed, original, vocab, words, segment);
  }
  const SeenWords seen_words = {seen + row->seen_begin, row->seen_count, row->repetition_penalty,
                                row->presence_penalty, row->frequency_penalty};
  change_words(t, seen_words, original, vocab, words, segment);
  const BiasedWords biased = {biases + row->bias_begin, row->bias_count};
  change_words(t, biased, original, vocab, words, segment);
  const SuppressedWords suppressed = {mask_ids + row->suppressed_begin, row->suppressed_count};
  change_words(t, suppressed, original, vocab, words, segment);
}

// ---- what is known of segments, and of the row

/// What segments come to, in the shared memory of each block of the cluster, and what the row does.
/// Numbers are the bits of floats; [num_segments] unless something else is said.
struct SampleKnown {
  GPU_SHARED u64* likeliest;  // the rank of the word
  GPU_SHARED u32* total;      // of e^(logit - largest)
  GPU_SHARED u32* drawn;      // of the same at the row's temperature
  GPU_SHARED u32* near;       // of the largest logits of lanes' halves alone, as `drawn`
  GPU_SHARED u32* smallest;   // as of SampleSummary; +infinity when no logit is finite
  GPU_SHARED u32* of_lanes;   // [num_segments, 2, kWarpSize] largest logits of lanes' halves
  GPU_SHARED u64* likeliest_of_row;
  GPU_SHARED u32* of_row;  // [4] its total, drawn, near and smallest
};

/// Looks at a segment and tells all blocks: of rows that are searched also the largest logits of
/// the lanes' halves, and the smallest where its distance may have to be within reach.
GPU_FN void look_at_segment(Thread t, SegmentLogits logits, u32 segment, SampleMode mode,
                            u32 num_blocks, SampleKnown known) {
  float of_half[2] = {as_f32(0xff800000u), as_f32(0xff800000u)};
  GPU_UNROLL
  for (u32 i = 0; i < kSegmentWords / kWarpSize; ++i) {
    const u32 half = i / (kSegmentWords / kWarpSize / 2);
    of_half[half] = gpu_max(of_half[half], logits.of_step[i / 4].value[i % 4]);
  }
  const float largest = warp_max(t, gpu_max(of_half[0], of_half[1]));
  // Where no word is possible, all are infinitely far from 0 as well.
  const float origin = largest > as_f32(0xff800000u) ? largest : 0.0f;
  u32 first = kSegmentWords;  // of the largest words, from the segment's first on
  GPU_UNROLL
  for (u32 n = 0; n < kSegmentWords / kWarpSize; ++n) {
    const u32 i = kSegmentWords / kWarpSize - 1 - n;
    if (logits.of_step[i / 4].value[i % 4] == largest) first = first_id(t, 0, i / 4) + i % 4;
  }
  const u64 likeliest = warp_max(t, ranked(largest, segment * kSegmentWords + first));
  float total = 0, drawn = 0, near = 0;
  if (mode.draws && mode.top_k == 0 && mode.scale != 1.44269504f) {
    GPU_UNROLL
    for (u32 i = 0; i < kSegmentWords / kWarpSize; ++i) {
      const float away = origin - logits.of_step[i / 4].value[i % 4];
      total += relative_mass(away * 1.44269504f);
      drawn += relative_mass(away * mode.scale);
    }
    total = warp_sum(t, total);
    drawn = warp_sum(t, drawn);
  } else {
    GPU_UNROLL
    for (u32 i = 0; i < kSegmentWords / kWarpSize; ++i) {
      total += relative_mass((origin - logits.of_step[i / 4].value[i % 4]) * 1.44269504f);
    }
    drawn = total = warp_sum(t, total);
  }
  float smallest = as_f32(0xff800000u);  // as if no limit were known
  if (mode.lists_top || (mode.draws && mode.top_k > 0)) {
    smallest = as_f32(0x7f800000u);
    GPU_UNROLL
    for (u32 i = 0; i < kSegmentWords / kWarpSize; ++i) {
      const float logit = logits.of_step[i / 4].value[i % 4];
      if (logit > as_f32(0xff800000u)) smallest = gpu_min(smallest, logit);
    }
    smallest = -warp_max(t, -smallest);
  }
  if (searches(mode)) {
    GPU_SHARED u32* of_lanes = known.of_lanes + 2 * segment * kWarpSize + t.lane;
    GPU_UNROLL
    for (u32 half = 0; half < 2; ++half) {
      near += relative_mass((origin - of_half[half]) * mode.scale);
      for (u32 peer = 0; peer < num_blocks; ++peer) {
        store_to_peer(t, of_lanes + half * kWarpSize, as_u32(of_half[half]), peer);
      }
    }
    near = warp_sum(t, near);
  }
  if (t.lane >= num_blocks) return;
  store_to_peer(t, known.likeliest + segment, likeliest, t.lane);
  store_to_peer(t, known.total + segment, as_u32(total), t.lane);
  store_to_peer(t, known.drawn + segment, as_u32(drawn), t.lane);
  store_to_peer(t, known.near + segment, as_u32(near), t.lane);
  store_to_peer(t, known.smallest + segment, as_u32(smallest), t.lane);
}

/// Of a row, after the changes.
struct SampleSummary {
  u64 likeliest;   // the rank of the word
  float largest;   // its logit; -infinity when no word is possible
  float smallest;  // finite logit; -infinity if none was looked for
  float total;     // of e^(logit - largest)
  float drawn;     // the same at the row's temperature, unless top-k cuts it
  float near;      // of this, what the largest words of lanes' halves count, if they are searched
};
/// From what is known of all segments.
GPU_FN SampleSummary summarise(Thread t, u32 num_segments, float scale, SampleKnown known) {
  SampleSummary row;
  if (t.warp == 0) {
    row.likeliest = 0;
    row.smallest = as_f32(0x7f800000u);
    for (u32 i = t.lane; i < num_segments; i += kWarpSize) {
      const u64 likeliest = known.likeliest[i];
      row.likeliest = likeliest > row.likeliest ? likeliest : row.likeliest;
      row.smallest = gpu_min(row.smallest, as_f32(known.smallest[i]));
    }
    row.likeliest = warp_max(t, row.likeliest);
    row.smallest = -warp_max(t, -row.smallest);
    row.largest = number_of(row.likeliest);
    row.total = row.drawn = row.near = 0;
    for (u32 i = t.lane; i < num_segments; i += kWarpSize) {
      const float away = row.largest - number_of(known.likeliest[i]);
      row.total = gpu_fma(as_f32(known.total[i]), relative_mass(away * 1.44269504f), row.total);
      row.drawn = gpu_fma(as_f32(known.drawn[i]), relative_mass(away * scale), row.drawn);
      row.near = gpu_fma(as_f32(known.near[i]), relative_mass(away * scale), row.near);
    }
    row.total = warp_sum(t, row.total);
    row.drawn = warp_sum(t, row.drawn);
    row.near = warp_sum(t, row.near);
    if (t.lane == 0) {
      *known.likeliest_of_row = row.likeliest;
      known.of_row[0] = as_u32(row.total);
      known.of_row[1] = as_u32(row.drawn);
      known.of_row[2] = as_u32(row.near);
      known.of_row[3] = as_u32(row.smallest);
    }
  }
  block_sync(t);
  row.likeliest = *known.likeliest_of_row;
  row.largest = number_of(row.likeliest);
  row.total = as_f32(known.of_row[0]);
  row.drawn = as_f32(known.of_row[1]);
  row.near = as_f32(known.of_row[2]);
  row.smallest = as_f32(known.of_row[3]);
  return row;
}

}  // namespace kernels
}  // namespace fovea
