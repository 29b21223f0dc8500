#pragma once

// The sampler's last kernel: the draw, the log-prob and the likeliest words, a block for each row.

#include "sample_select.h"

namespace fovea {
namespace kernels {

// Philox4x32-10: the 53 random bits of (seed, position), in the upper bits of a word.
GPU_FN u64 random_bits(const GPU_GLOBAL SampleRow* row) {
  u32 x0 = row->position[0], x1 = row->position[1], x2 = 0, x3 = 0;
  u32 key0 = row->seed[0], key1 = row->seed[1];
  for (u32 round = 0; round < 10; ++round) {
    const u32 high0 = mul_hi(0xD2511F53u, x0), low0 = 0xD2511F53u * x0;
    const u32 high1 = mul_hi(0xCD9E8D57u, x2), low1 = 0xCD9E8D57u * x2;
    x0 = high1 ^ x1 ^ key0;
    x1 = low1;
    x2 = high0 ^ x3 ^ key1;
    x3 = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return ((static_cast<u64>(x0) << 32) | x1) & ~static_cast<u64>(0x7ff);
}

// The lowest id that the masks allow; 0 when there is none.
GPU_FN u32 lowest_allowed(Thread t, const GPU_GLOBAL SampleRow* row, u32 vocab,
                          const GPU_GLOBAL i32* mask_ids, GPU_SHARED u64* sums) {
  const u32 count = row->allowed_count > 0 ? row->allowed_count : vocab;
  u64 best = 0;
  for (u32 i = t.index; i < count; i += t.num_warps * kWarpSize) {
    const u32 id = row->allowed_count > 0 ? static_cast<u32>(mask_ids[row->allowed_begin + i]) : i;
    bool is_allowed = id < vocab;
    for (u32 s = 0; s < row->suppressed_count; ++s) {
      if (static_cast<u32>(mask_ids[row->suppressed_begin + s]) == id) is_allowed = false;
    }
    const u64 rank = 0xffffffffu - id;
    if (is_allowed && rank > best) best = rank;
  }
  best = block_max(t, best, sums);
  return best == 0 ? 0 : place_of(best);
}

// What a word counts in the draw.
GPU_FN u32 drawn_mass(SampleWords words, u64 rank, u64 boundary, float min_p) {
  return rank < boundary ? 0 : drawn_mass(distance(words, number_of(rank)), min_p);
}

// Words from a rank up count.
struct FromBoundary {
  u64 boundary;
  float min_p;
};
GPU_FN u32 mass_of(FromBoundary from, SampleWords words, float logit, u32 id, SampleScratch) {
  return drawn_mass(words, ranked(logit, id), from.boundary, from.min_p);
}

// What each segment counts in the draw, of the words that the cuts leave.
GPU_FN void sum_drawn(Thread t, SampleWords words, SampleCut cut, float min_p, SampleScratch s) {
  const u32 num_threads = t.num_warps * kWarpSize;
  for (u32 i = t.index; !cut.is_summed && i < 2 * words.num_segments; i += num_threads) {
    s.segment_low[i] = 0;
  }
  block_sync(t);
  for (u32 i = t.index; i < cut.ranks.count; i += num_threads) {
    const u32 mass = drawn_mass(words, cut.ranks.list[i], cut.boundary, min_p);
    const u32 segment = place_of(cut.ranks.list[i]) / kSegmentWords;
    if (mass > 0) atomic_add_mass(s.segment_low + segment, s.segment_high + segment, mass);
  }
  if (cut.ranks.count > 0) return;
  FromBoundary from;
  from.boundary = cut.boundary;
  from.min_p = min_p;
  sum_segments(t, words, cut.ranks.reach, from, s);
}
// The same of all words: as sample_scan summed them.
GPU_FN void sum_drawn(Thread t, SampleWords words, const GPU_GLOBAL SampleSegment* segments,
                      SampleScratch s) {
  for (u32 i = t.index; i < words.num_segments; i += t.num_warps * kWarpSize) {
    const float mass = segments[i].drawn * relative_mass(distance(words, segments[i].largest));
    const u64 whole = static_cast<u64>(mass * 2147483648.0f);
    s.segment_low[i] = static_cast<u32>(whole);
    s.segment_high[i] = static_cast<u32>(whole >> 32);
  }
}

// The first word, by ascending id, at which the mass summed so far passes the random share of all
// of it. Every warp finds the segment that holds the place; then threads sum stretches of its
// words. Where that sum is less than what the segment counted, by a rounding, what is over is its
// last word's.
GPU_FN u32 draw(Thread t, u64 random, SampleWords words, u64 boundary, float min_p,
                SampleScratch s) {
  block_sync(t);
  u64 total = 0;
  for (u32 i = t.lane; i < words.num_segments; i += kWarpSize) {
    total += (static_cast<u64>(s.segment_high[i]) << 32) | s.segment_low[i];
  }
  u64 target = mul_hi(random, warp_sum(t, total));
  u64 before = 0;
  u32 segment = words.num_segments;
  for (u32 first = 0; first < words.num_segments; first += kWarpSize) {
    const u32 i = first + t.lane;
    const u64 own =
        i < words.num_segments ? (static_cast<u64>(s.segment_high[i]) << 32) | s.segment_low[i] : 0;
    const u64 up_to = before + sum_before(t, own) + own;
    const u32 lane = first_lane(t, up_to > target);
    if (lane < kWarpSize) {
      segment = first + lane;
      before = shuffle(t, up_to - own, lane);
      break;
    }
    before = shuffle(t, up_to, kWarpSize - 1);
  }
  target -= before;
  const u32 num_threads = t.num_warps * kWarpSize;
  const u32 each = (kSegmentWords + num_threads - 1) / num_threads;
  const u32 segment_begin = segment * kSegmentWords;
  const u32 left = segment < words.num_segments ? words.vocab - segment_begin : 0;
  const u32 segment_words = left < kSegmentWords ? left : kSegmentWords;
  const u32 first = t.index * each;
  u64 own = 0;
  for (u32 i = first; i < first + each && i < segment_words; ++i) {
    const u32 id = segment_begin + i;
    own += drawn_mass(words, ranked(words.logits[id], id), boundary, min_p);
  }
  const u64 before_lane = sum_before(t, own);
  if (t.lane == kWarpSize - 1) s.sums[t.warp] = before_lane + own;
  block_sync(t);
  const u64 of_warp = t.lane < t.num_warps ? s.sums[t.lane] : 0;
  const u64 before_warp = sum_before(t, of_warp);
  const u64 all = shuffle(t, before_warp + of_warp, kWarpSize - 1);
  if (target >= all && all > 0) target = all - 1;
  before = shuffle(t, before_warp, t.warp) + before_lane;
  if (before <= target && target - before < own) {
    u32 id = segment_begin + first;
    for (;; ++id) {
      const u64 mass = drawn_mass(words, ranked(words.logits[id], id), boundary, min_p);
      if (target - before < mass) break;
      before += mass;
    }
    *s.chosen = id;
  }
  block_sync(t);
  return *s.chosen;
}

// The same for a short list, in any order.
GPU_FN u32 draw_listed(Thread t, u64 random, SampleWords words, SampleCut cut, float min_p,
                       SampleScratch s) {
  const u32 num_threads = t.num_warps * kWarpSize;
  block_sync(t);
  for (u32 i = t.index; i < cut.ranks.count; i += num_threads) {
    s.masses[i] = drawn_mass(words, cut.ranks.list[i], cut.boundary, min_p);
  }
  block_sync(t);
  for (u32 first = 0; first < cut.ranks.count; first += num_threads / kSampleShare) {
    const u32 i = first + t.index / kSampleShare;
    const u32 id = i < cut.ranks.count ? place_of(cut.ranks.list[i]) : 0;
    u64 before = 0, total = 0;
    for (u32 j = t.index % kSampleShare; j < cut.ranks.count; j += kSampleShare) {
      before += place_of(cut.ranks.list[j]) < id ? s.masses[j] : 0;
      total += s.masses[j];
    }
    before = sum_shares(t, before);
    const u64 target = mul_hi(random, sum_shares(t, total));
    if (i < cut.ranks.count && t.index % kSampleShare == 0 && before <= target &&
        target - before < s.masses[i]) {
      *s.chosen = id;
    }
  }
  block_sync(t);
  return *s.chosen;
}

// The num_top likeliest possible words.
GPU_FN void list_top(Thread t, SampleWords words, u32 num_top, u32 max_top, float log_total,
                     GPU_GLOBAL i32* top_ids, GPU_GLOBAL float* top_logprobs, SampleScratch s) {
  const u32 num_threads = t.num_warps * kWarpSize;
  u32 count = 0;
  if (num_top > 0) {
    const SampleRuler ruler = ruler_to(reach_of_groups(t, words, NumberBuckets(), num_top, s));
    count = gather(t, words, ruler, Fills::kNothing, s);
  }
  if (count <= kSampleList) {
    // How many are likelier is a word's place.
    for (u32 i = t.index; i < count; i += num_threads) {
      u32 place = 0;
      for (u32 j = 0; j < count; ++j) place += s.list[j] > s.list[i] ? 1 : 0;
      if (place >= num_top) continue;
      top_ids[place] = static_cast<i32>(place_of(s.list[i]));
      top_logprobs[place] = number_of(s.list[i]) - words.largest - log_total;
    }
  } else {
    // So many are about equal: one after another.
    u64 taken = ~static_cast<u64>(0);
    for (u32 n = 0; n < num_top; ++n) {
      u64 best = 0;
      for (u32 i = t.index; i < words.vocab; i += num_threads) {
        const u64 rank = ranked(words.logits[i], i);
        if (rank < taken && rank > best) best = rank;
      }
      taken = block_max(t, best, s.places);
      if (t.index != 0) continue;
      top_ids[n] = static_cast<i32>(place_of(taken));
      top_logprobs[n] = number_of(taken) - words.largest - log_total;
    }
  }
  for (u32 n = (count < num_top ? count : num_top) + t.index; n < max_top; n += num_threads) {
    top_ids[n] = -1;
    top_logprobs[n] = as_f32(0xff800000u);
  }
}

/// Block `row`. `ids` and `logprobs` are [rows], `top_ids` and `top_logprobs` [rows, max_top].
GPU_FN void sample_choose(Thread t, const GPU_CONST SampleParams& p, const GPU_GLOBAL float* logits,
                          const GPU_GLOBAL SampleRow* rows, const GPU_GLOBAL i32* mask_ids,
                          const GPU_GLOBAL float* changed, const GPU_GLOBAL SampleSegment* segments,
                          const GPU_GLOBAL float* group_largest, GPU_GLOBAL i32* ids,
                          GPU_GLOBAL float* logprobs, GPU_GLOBAL i32* top_ids,
                          GPU_GLOBAL float* top_logprobs, GPU_SHARED char* scratch) {
  const SampleScratch s = sample_scratch(scratch, p.num_segments);
  const GPU_GLOBAL SampleRow* row = rows + t.block.x;
  const u64 first_segment = static_cast<u64>(t.block.x) * p.num_segments;
  segments += first_segment;
  const SampleMode mode = mode_of(row, p.vocab);
  SampleWords words;
  words.logits = (changes_logits(row) ? changed : logits) + static_cast<u64>(t.block.x) * p.vocab;
  words.group_largest = group_largest + first_segment * kSegmentGroups;
  words.vocab = p.vocab;
  words.num_segments = p.num_segments;
  words.loads_four = p.loads_four != 0;
  words.scale = mode.scale;

  // Every warp sums what sample_scan found.
  words.largest = as_f32(0xff800000u);
  for (u32 i = t.lane; i < p.num_segments; i += kWarpSize) {
    words.largest = gpu_max(words.largest, segments[i].largest);
  }
  words.largest = warp_max(t, words.largest);
  float total = 0, drawn_total = 0;
  u64 likeliest = 0;
  for (u32 i = t.lane; i < p.num_segments; i += kWarpSize) {
    const SampleSegment known = segments[i];
    const float away = words.largest - known.largest;
    total = gpu_fma(known.total, relative_mass(away * 1.44269504f), total);
    drawn_total = gpu_fma(known.drawn, relative_mass(away * mode.scale), drawn_total);
    const u64 place = 0xffffffffu - known.first;
    if (known.largest == words.largest && place > likeliest) likeliest = place;
  }
  total = warp_sum(t, total);
  u32 id = 0xffffffffu - static_cast<u32>(warp_max(t, likeliest));
  float logprob = 0;
  top_ids += t.block.x * p.max_top;
  top_logprobs += t.block.x * p.max_top;
  if (!is_finite(words.largest)) {
    // Either +infinity is there, or nothing is left at all.
    if (!(words.largest > 0)) {
      id = lowest_allowed(t, row, p.vocab, mask_ids, s.places);
      logprob = as_f32(0xff800000u);
    }
    for (u32 n = t.index; n < p.max_top; n += t.num_warps * kWarpSize) {
      const bool is_word = n == 0 && row->num_top > 0;
      top_ids[n] = is_word ? static_cast<i32>(id) : -1;
      top_logprobs[n] = is_word ? logprob : as_f32(0xff800000u);
    }
  } else {
    const float log_total = gpu_log(total);
    if (p.max_top > 0) {
      list_top(t, words, row->num_top, p.max_top, log_total, top_ids, top_logprobs, s);
    }
    if (mode.draws) {
      // Should nothing be left to draw from, it is the likeliest.
      if (t.index == 0) *s.chosen = id;
      const u64 random = random_bits(row);
      if (mode.cuts) {
        const SampleCut cut = cut_words(t, words, mode, warp_sum(t, drawn_total), s);
        if (cut.ranks.count > 0 && cut.ranks.count <= kSampleShort && !cut.is_summed) {
          id = draw_listed(t, random, words, cut, mode.min_p, s);
        } else {
          sum_drawn(t, words, cut, mode.min_p, s);
          id = draw(t, random, words, cut.boundary, mode.min_p, s);
        }
      } else {
        sum_drawn(t, words, segments, s);
        id = draw(t, random, words, 0, 0, s);
      }
    }
    logprob = words.logits[id] - words.largest - log_total;
  }
  if (t.index == 0) {
    ids[t.block.x] = static_cast<i32>(id);
    logprobs[t.block.x] = logprob;
  }
}

}  // namespace kernels
}  // namespace fovea
