#pragma once

// The sampler: changes of logits, cuts, the draw, its log-prob and the likeliest words, in one
// kernel.

#include "sample_cut.h"

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
                          const GPU_GLOBAL i32* mask_ids, GPU_SHARED u64* of_warps) {
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
  best = block_max(t, best, of_warps);
  return best == 0 ? 0 : place_of(best);
}

// ---- the draw

/// The words that may be drawn.
struct SampleDraw {
  SampleMeasure measure;
  SampleFloor floor;
  float min_p;
};
GPU_FN u32 mass_of(SampleDraw draw, float logit, u32 id) {
  const u32 mass = drawn_mass(distance(draw.measure, logit), draw.min_p);
  return stays(draw.floor, logit, id) ? mass : 0;
}

/// What segments count in the draw, to s.masses of each block, of the words that stay.
template <class Floats>
GPU_FN void sum_drawn(Thread t, SampleWords<Floats> words, SampleDraw draw, SampleScratch s) {
  for (u32 segment = words.first_segment + t.warp; segment < words.end_segment;
       segment += t.num_warps) {
    u32 found = 0;  // a bit for each of the lane's words: mostly few stay
    GPU_UNROLL
    for (u32 step = 0; step < kSegmentSteps; ++step) {
      const Float4 four = load_words(t, words, segment, step);
      GPU_UNROLL
      for (u32 j = 0; j < 4; ++j) {
        found |= four.value[j] >= draw.floor.logit ? 1u << (4 * step + j) : 0;
      }
    }
    u64 own = 0;
    for (; found != 0; found &= found - 1) {
      const u32 at = word_at(t, lowest_bit(found));
      const float logit = words_of_segment(words, segment)[at];
      own += mass_of(draw, logit, segment * kSegmentWords + at);
    }
    own = warp_sum(t, own);
    if (t.lane < s.num_blocks) store_to_peer(t, s.masses + segment, own, t.lane);
  }
  cluster_sync(t);
}
/// The same of all words: as look_at_segment() summed them.
GPU_FN void sum_drawn(Thread t, SampleMeasure measure, SampleScratch s) {
  for (u32 i = t.index; i < s.num_segments; i += t.num_warps * kWarpSize) {
    const float away = distance(measure, number_of(s.known.likeliest[i]));
    const float mass = as_f32(s.known.drawn[i]) * relative_mass(away);
    s.masses[i] = static_cast<u64>(mass * 2147483648.0f);
  }
  block_sync(t);
}

/// What a segment counts; 0 behind the last.
GPU_FN u64 mass_of_segment(u32 segment, SampleScratch s) {
  if (segment >= s.num_segments) return 0;
  const u64 upper = static_cast<u64>(s.added[2 * segment + 1]) << WordsInShared::kLowBits;
  return s.masses[segment] + upper + s.added[2 * segment];
}

/// A word of the row; kNoWord: another thread has it.
constexpr GPU_CONST u32 kNoWord = 0xffffffffu;
struct SampledWord {
  u32 id;
  float logit;
};

/// The first word, by ascending id, at which the mass summed so far passes the random share of all
/// of it: to the one thread of the cluster whose word it is. `likeliest` should nothing be left.
/// Where a segment's words sum to less than s.masses has, by a rounding, what is over is its last
/// word's, and if none of them counts anything, the likeliest word's. Blocks have kSegmentSteps
/// warps at least.
template <class Floats>
GPU_FN SampledWord draw_word(Thread t, SampleWords<Floats> words, SampleDraw draw, u64 random,
                             SampledWord likeliest, SampleScratch s) {
  SampledWord word;
  word.id = kNoWord;
  word.logit = 0;

  // Every warp finds the segment; a lane has several side by side.
  const u32 each = (s.num_segments + kWarpSize - 1) / kWarpSize;
  u64 own = 0;
  for (u32 n = 0; n < each; ++n) own += mass_of_segment(each * t.lane + n, s);
  const u64 before_own = sum_before(t, own);
  const u64 total = shuffle(t, before_own + own, kWarpSize - 1);
  if (total == 0) return t.index == 0 && words.first_segment == 0 ? likeliest : word;
  u64 target = mul_hi(random, total);
  const u32 lane = first_lane(t, before_own + own > target);
  u64 before = shuffle(t, before_own, lane);
  u32 segment = each * lane;
  while (before + mass_of_segment(segment, s) <= target) before += mass_of_segment(segment++, s);
  if (segment < words.first_segment || segment >= words.end_segment) return word;
  target -= before;

  // A warp for each of its steps, and one lane has the word.
  Float4 four;
  own = 0;
  if (t.warp < kSegmentSteps) {
    four = load_words(t, words, segment, t.warp);
    GPU_UNROLL
    for (u32 j = 0; j < 4; ++j) {
      own += mass_of(draw, four.value[j], first_id(t, segment, t.warp) + j);
    }
    const u64 of_step = warp_sum(t, own);
    if (t.lane == 0) s.of_warps[t.warp] = of_step;
  }
  block_sync(t);
  if (t.warp >= kSegmentSteps) return word;
  u64 before_step = 0, all = 0;
  GPU_UNROLL
  for (u32 step = 0; step < kSegmentSteps; ++step) {
    if (step == t.warp) before_step = all;
    all += s.of_warps[step];
  }
  if (all == 0) return t.index == 0 ? likeliest : word;
  if (target >= all) target = all - 1;
  before = before_step + sum_before(t, own);
  if (before > target || target - before >= own) return word;
  GPU_UNROLL
  for (u32 j = 0; j < 4; ++j) {
    const u32 id = first_id(t, segment, t.warp) + j;
    const u64 mass = mass_of(draw, four.value[j], id);
    if (before <= target && target - before < mass) {
      word.id = id;
      word.logit = four.value[j];
    }
    before += mass;
  }
  return word;
}

/// The same of the words listed, of which some may be below the floor: to a thread of the first
/// block.
GPU_FN SampledWord draw_listed(Thread t, u32 count, SampleDraw draw, u64 random,
                               SampledWord likeliest, SampleScratch s) {
  constexpr u32 kSharers = 8;  // lanes that share the comparisons of a word
  const u32 num_threads = t.num_warps * kWarpSize;
  SampledWord word;
  word.id = kNoWord;
  word.logit = 0;
  if (t.block.y != 0) return word;
  block_sync(t);
  for (u32 i = t.index; i < count; i += num_threads) {
    s.listed_masses[i] = mass_of(draw, number_of(s.listed[i]), place_of(s.listed[i]));
  }
  block_sync(t);
  u64 total = 0;
  for (u32 i = t.lane; i < count; i += kWarpSize) total += s.listed_masses[i];
  total = warp_sum(t, total);
  if (total == 0) return t.index == 0 ? likeliest : word;
  const u64 target = mul_hi(random, total);
  for (u32 first = 0; first < count; first += num_threads / kSharers) {
    const u32 i = first + t.index / kSharers;
    const u32 id = i < count ? place_of(s.listed[i]) : 0;
    u64 before = 0;
    for (u32 j = t.index % kSharers; j < count; j += kSharers) {
      before += place_of(s.listed[j]) < id ? s.listed_masses[j] : 0;
    }
    GPU_UNROLL
    for (u32 mask = 1; mask < kSharers; mask *= 2) before += shuffle_xor(t, before, mask);
    const bool is_here = i < count && before <= target && target - before < s.listed_masses[i];
    if (is_here && t.index % kSharers == 0) {
      word.id = id;
      word.logit = number_of(s.listed[i]);
    }
  }
  return word;
}

// ---- the likeliest words

/// The num_top likeliest possible words, and nothing behind them.
template <class Place>
GPU_FN void list_top(Thread t, SampleWords<typename Place::Floats> words, SampleSearch search,
                     u32 num_top, u32 max_top, float log_total, GPU_GLOBAL i32* top_ids,
                     GPU_GLOBAL float* top_logprobs, SampleScratch s) {
  const u32 num_threads = t.num_warps * kWarpSize;
  u32 count = 0;
  if (num_top > 0) {
    const SampleCut cut = cut_by_number<Place>(t, words, search, num_top, s);
    count = cut.num_listed;
    if (count == 0) {
      WordsAbove above;
      above.floor = cut.floor;
      count = list_words(t, words, search, above, false, s);
    }
  }
  if (words.first_segment != 0) return;
  for (u32 i = t.index; i < count; i += num_threads) {
    // How many are likelier is a word's place.
    u32 place = 0;
    for (u32 j = 0; j < count; ++j) place += s.listed[j] > s.listed[i] ? 1 : 0;
    if (place >= num_top) continue;
    top_ids[place] = static_cast<i32>(place_of(s.listed[i]));
    top_logprobs[place] = number_of(s.listed[i]) - search.measure.largest - log_total;
  }
  for (u32 n = (count < num_top ? count : num_top) + t.index; n < max_top; n += num_threads) {
    top_ids[n] = -1;
    top_logprobs[n] = as_f32(0xff800000u);
  }
}

// ---- the kernel

GPU_FN GPU_SHARED float* words_at(WordsInShared, GPU_SHARED float* shared, GPU_GLOBAL float*, u64) {
  return shared;
}
GPU_FN GPU_GLOBAL float* words_at(WordsInMemory, GPU_SHARED float*, GPU_GLOBAL float* memory,
                                  u64 first_word) {
  return memory + first_word;
}

/// Block (row, part of the row). `changed` [rows, num_segments, kSegmentWords] is for WordsInMemory
/// alone. `ids` and `logprobs` are [rows], `top_ids` and `top_logprobs` [rows, max_top].
template <class Place>
GPU_FN void sample(Thread t, const GPU_CONST SampleParams& p, const GPU_GLOBAL float* logits,
                   const GPU_GLOBAL SampleRow* rows, const GPU_GLOBAL i32* mask_ids,
                   const GPU_GLOBAL SampleSeen* seen, const GPU_GLOBAL SampleBias* biases,
                   GPU_GLOBAL float* changed, GPU_GLOBAL i32* ids, GPU_GLOBAL float* logprobs,
                   GPU_GLOBAL i32* top_ids, GPU_GLOBAL float* top_logprobs,
                   GPU_SHARED char* scratch) {
  logits += static_cast<u64>(t.block.x) * p.vocab;
  const u32 segments_each = (p.num_segments + p.num_blocks - 1) / p.num_blocks;
  SampleWords<typename Place::Floats> words;
  words.first_segment = t.block.y * segments_each;
  words.end_segment = words.first_segment + segments_each;
  if (words.end_segment > p.num_segments) words.end_segment = p.num_segments;
  const u64 first_word =
      (static_cast<u64>(t.block.x) * p.num_segments + words.first_segment) * kSegmentWords;
  words.logits =
      words_at(Place(), reinterpret_cast<GPU_SHARED float*>(scratch), changed, first_word);
  const SampleScratch s = sample_scratch(scratch + segments_each * Place::kSharedBytes,
                                         p.num_segments, p.num_blocks, Place::kCopies);

  // The first loads are under way before the row is known, and the other blocks.
  cluster_arrive(t);
  SegmentLogits own =
      original_segment(t, logits, p.vocab, p.loads_four != 0, words.first_segment + t.warp);
  const GPU_GLOBAL SampleRow* row = rows + t.block.x;
  const SampleMode mode = mode_of(row, p);
  if (searches(mode)) {
    clear_buckets(t, s.low, kSampleBuckets * Place::kCopies);
    if (t.index == 0) *s.turn = 0;
  }
  for (u32 i = t.index; i < 2 * p.num_segments; i += t.num_warps * kWarpSize) s.added[i] = 0;
  if (t.warp == 0) {
    const u64 random = random_bits(row);
    if (t.lane == 0) *s.random = random;
  }
  cluster_wait(t);
  for (u32 segment = words.first_segment + t.warp; segment < words.end_segment;
       segment += t.num_warps) {
    if (segment != words.first_segment + t.warp) {
      own = original_segment(t, logits, p.vocab, p.loads_four != 0, segment);
    }
    if (changes_logits(row)) {
      store_segment(t, words, segment, own);
      warp_sync(t);
      change_segment(t, row, p.vocab, logits, mask_ids, seen, biases, words, segment);
      own = load_segment(t, words, segment);
      warp_sync(t);
    }
    own = without_nan(own);
    if (mode.draws || mode.lists_top) store_segment(t, words, segment, own);
    look_at_segment(t, own, segment, mode, p.num_blocks, s.known);
  }
  cluster_sync(t);
  const SampleSummary known = summarise(t, p.num_segments, mode.scale, s.known);
  const u32 first_top = t.block.x * p.max_top;
  const bool is_first = t.block.y == 0 && t.index == 0;
  SampledWord word;
  word.id = place_of(known.likeliest);
  word.logit = known.largest;
  if (!is_finite(known.largest)) {
    // Either +infinity is there, or nothing is left at all.
    float logprob = 0;
    if (!(known.largest > 0)) {
      word.id = lowest_allowed(t, row, p.vocab, mask_ids, s.of_warps);
      logprob = as_f32(0xff800000u);
    }
    if (is_first) {
      ids[t.block.x] = static_cast<i32>(word.id);
      logprobs[t.block.x] = logprob;
    }
    for (u32 n = t.index; t.block.y == 0 && n < p.max_top; n += t.num_warps * kWarpSize) {
      const bool is_word = n == 0 && row->num_top > 0;
      top_ids[first_top + n] = is_word ? static_cast<i32>(word.id) : -1;
      top_logprobs[first_top + n] = is_word ? logprob : as_f32(0xff800000u);
    }
    return;
  }
  const float log_total = gpu_log(known.total);
  SampleDraw draw;
  draw.measure.largest = known.largest;
  draw.measure.scale = mode.scale;
  draw.floor = no_floor();
  draw.min_p = mode.min_p;
  if (mode.lists_top) {
    SampleMeasure measure;  // whatever the temperature is
    measure.largest = known.largest;
    measure.scale = 1.44269504f;
    const float range = distance(measure, known.smallest);
    list_top<Place>(t, words, search_within(measure, range), row->num_top, p.max_top, log_total,
                    top_ids + first_top, top_logprobs + first_top, s);
  }
  if (mode.draws) {
    if (mode.cuts) {
      const SampleCut cut = cut_words<Place>(t, words, mode, draw.measure, known, s);
      draw.floor = cut.floor;
      if (cut.num_listed > 0) {
        word = draw_listed(t, cut.num_listed, draw, *s.random, word, s);
      } else {
        if (!cut.has_masses) sum_drawn(t, words, draw, s);
        word = draw_word(t, words, draw, *s.random, word, s);
      }
    } else {
      sum_drawn(t, draw.measure, s);
      word = draw_word(t, words, draw, *s.random, word, s);
    }
  } else if (!is_first) {
    return;
  }
  if (word.id != kNoWord) {
    ids[t.block.x] = static_cast<i32>(word.id);
    logprobs[t.block.x] = word.logit - known.largest - log_total;
  }
}

}  // namespace kernels
}  // namespace fovea
