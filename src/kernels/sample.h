#pragma once

// The sampler: penalties, biases, masks, temperature, top-k, top-p, min-p, the draw, log-probs and
// the likeliest words, in one kernel. One block for each row of logits.

#include "sample_select.h"

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
  u32 max_top;  // words that a row of top_ids has room for; 0 = there are none
  u32 pad0_, pad1_;
};

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

// The changed logits of a row in `work`. Threads work on words of their own between barriers.
GPU_FN void change_logits(Thread t, const GPU_GLOBAL SampleRow* row, u32 vocab,
                          const GPU_GLOBAL float* logits, const GPU_GLOBAL i32* mask_ids,
                          const GPU_GLOBAL SampleSeen* seen, const GPU_GLOBAL SampleBias* biases,
                          GPU_GLOBAL float* work) {
  const u32 num_threads = t.num_warps * kWarpSize;
  const float impossible = as_f32(0xff800000u);
  const bool is_limited = row->allowed_count > 0;
  for (u32 i = t.index; i < vocab; i += num_threads) work[i] = is_limited ? impossible : logits[i];
  block_sync_global(t);
  for (u32 i = t.index; i < row->allowed_count; i += num_threads) {
    const u32 id = static_cast<u32>(mask_ids[row->allowed_begin + i]);
    if (id < vocab) work[id] = logits[id];  // an id may come twice: the same is written
  }
  block_sync_global(t);
  for (u32 i = t.index; i < row->seen_count; i += num_threads) {
    const SampleSeen word = seen[row->seen_begin + i];
    const u32 id = static_cast<u32>(word.id);
    if (id >= vocab) continue;
    float logit = work[id];
    logit = logit > 0 ? logit / row->repetition_penalty : logit * row->repetition_penalty;
    if (word.answer_count > 0) logit -= row->presence_penalty;
    work[id] = logit - row->frequency_penalty * static_cast<float>(word.answer_count);
  }
  block_sync_global(t);
  for (u32 i = t.index; i < row->bias_count; i += num_threads) {
    const SampleBias bias = biases[row->bias_begin + i];
    if (static_cast<u32>(bias.id) < vocab) work[bias.id] += bias.value;
  }
  block_sync_global(t);
  for (u32 i = t.index; i < row->suppressed_count; i += num_threads) {
    const u32 id = static_cast<u32>(mask_ids[row->suppressed_begin + i]);
    if (id < vocab) work[id] = impossible;
  }
  block_sync_global(t);
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
GPU_FN u32 drawn_mass(SampleWords words, float logit, u32 id, u64 boundary, float min_p) {
  if (boundary > 0) {
    const float edge = number_of(boundary);
    if (!(logit > edge || (logit == edge && id <= place_of(boundary)))) return 0;
  }
  const float mass = relative_mass(words, logit);
  return mass < min_p ? 0 : whole_mass(mass);
}

// What the words of each warp count in the draw.
GPU_FN void sum_drawn(Thread t, SampleWords words, u64 boundary, float min_p, SampleScratch s) {
  u64 own = 0;
  for (u32 i = words.begin + t.lane; i < words.end; i += kSampleChunk * kWarpSize) {
    const SampleLogits logits = load_logits(words, i);
    GPU_UNROLL
    for (u32 j = 0; j < kSampleChunk; ++j) {
      own += drawn_mass(words, logits.value[j], i + j * kWarpSize, boundary, min_p);
    }
  }
  own = warp_sum(t, own);
  block_sync(t);
  if (t.lane == 0) s.sums[t.warp] = own;
  block_sync(t);
}

// The first word, by ascending id, at which the mass summed so far passes the random share of all
// of it. Of the warps' sums each lane looks at one; the warp whose words hold the place looks
// closer: lanes sum stretches of their own, then all look at the stretch that is left.
GPU_FN u32 draw(Thread t, u64 random, SampleWords words, u64 boundary, float min_p,
                SampleScratch s) {
  const u64 of_warp = t.lane < t.num_warps ? s.sums[t.lane] : 0;
  const u64 before_warp = sum_before(t, of_warp);
  const u64 target = mul_hi(random, shuffle(t, before_warp + of_warp, kWarpSize - 1));
  const u32 warp = first_lane(t, before_warp <= target && target - before_warp < of_warp);
  if (warp == t.warp) {
    u64 before = shuffle(t, before_warp, warp);
    const u32 each = (words.end - words.begin + kWarpSize - 1) / kWarpSize;
    const u32 begin = words.begin + t.lane * each;
    u64 own = 0;
    for (u32 i = begin; i < begin + each && i < words.end; ++i) {
      own += drawn_mass(words, words.logits[i], i, boundary, min_p);
    }
    const u64 before_lane = before + sum_before(t, own);
    const u32 lane = first_lane(t, before_lane <= target && target - before_lane < own);
    before = shuffle(t, before_lane, lane);
    const u32 first = words.begin + lane * each;
    for (u32 i = 0; i < each; i += kWarpSize) {
      const u32 id = first + i + t.lane;
      const bool inside = i + t.lane < each && id < words.end;
      const u64 mass = inside ? drawn_mass(words, words.logits[id], id, boundary, min_p) : 0;
      const u64 before_word = before + sum_before(t, mass);
      const u32 found = first_lane(t, before_word <= target && target - before_word < mass);
      if (found < kWarpSize) {
        if (t.lane == found) *s.chosen = id;
        break;
      }
      before = shuffle(t, before_word + mass, kWarpSize - 1);
    }
  }
  block_sync(t);
  return *s.chosen;
}

// The same for a short list, in any order.
GPU_FN u32 draw_listed(Thread t, u64 random, SampleWords words, SampleCut cut, float min_p,
                       SampleScratch s) {
  const u32 num_threads = t.num_warps * kWarpSize;
  block_sync(t);
  for (u32 i = t.index; i < cut.num_listed; i += num_threads) {
    const float mass = relative_mass(words, number_of(s.list[i]));
    s.masses[i] = s.list[i] < cut.boundary || mass < min_p ? 0 : whole_mass(mass);
  }
  block_sync(t);
  for (u32 i = t.index; i < cut.num_listed; i += num_threads) {
    const u32 id = place_of(s.list[i]);
    u64 before = 0, total = 0;
    for (u32 j = 0; j < cut.num_listed; ++j) {
      before += place_of(s.list[j]) < id ? s.masses[j] : 0;
      total += s.masses[j];
    }
    const u64 target = mul_hi(random, total);
    if (before <= target && target - before < s.masses[i]) *s.chosen = id;
  }
  block_sync(t);
  return *s.chosen;
}

// The num_top likeliest possible words, one after another.
GPU_FN void list_top(Thread t, SampleWords words, u32 num_top, u32 max_top, float log_total,
                     GPU_GLOBAL i32* top_ids, GPU_GLOBAL float* top_logprobs,
                     GPU_SHARED u64* sums) {
  u64 taken = ~static_cast<u64>(0);
  for (u32 n = 0; n < max_top; ++n) {
    u64 best = 0;
    if (n < num_top) {
      for (u32 i = t.index; i < words.vocab; i += t.num_warps * kWarpSize) {
        const float logit = words.logits[i];
        const u64 rank = ranked(logit, i);
        if (rank < taken && rank > best && is_finite(logit)) best = rank;
      }
      best = block_max(t, best, sums);
      taken = best;
    }
    if (t.index != 0) continue;
    top_ids[n] = best == 0 ? -1 : static_cast<i32>(place_of(best));
    top_logprobs[n] = best == 0 ? as_f32(0xff800000u) : number_of(best) - words.largest - log_total;
  }
}

// What a look at all words gives.
struct SampleTotals {
  float total;  // of masses at temperature 1
  u64 mass;     // at the row's temperature, of words that are not less than min_p; also in s.sums,
                // for each warp
  u32 first;    // the lowest id of the largest logit
};
GPU_FN SampleTotals total_words(Thread t, SampleWords words, bool draws, float min_p,
                                SampleScratch s) {
  SampleWords plain = words;
  plain.scale = 1.44269504f;
  const bool is_plain = words.scale == plain.scale;
  float total = 0;
  u64 mass = 0;
  u32 first = 0xffffffffu;
  for (u32 i = words.begin + t.lane; i < words.end; i += kSampleChunk * kWarpSize) {
    const SampleLogits logits = load_logits(words, i);
    GPU_UNROLL
    for (u32 j = 0; j < kSampleChunk; ++j) {
      const float logit = logits.value[j];
      const float counts = relative_mass(plain, logit);
      total += counts;
      if (logit == words.largest && first == 0xffffffffu) first = i + j * kWarpSize;
      if (!draws) continue;
      const float drawn = is_plain ? counts : relative_mass(words, logit);
      mass += drawn < min_p ? 0 : whole_mass(drawn);
    }
  }
  total = warp_sum(t, total);
  mass = warp_sum(t, mass);
  const u64 place = warp_max(t, static_cast<u64>(0xffffffffu - first));
  if (t.lane == 0) {
    s.totals[t.warp] = total;
    s.sums[t.warp] = mass;
    s.places[t.warp] = place;
  }
  block_sync(t);
  const bool is_warp = t.lane < t.num_warps;
  SampleTotals all;
  all.total = warp_sum(t, is_warp ? s.totals[t.lane] : 0.0f);
  all.mass = warp_sum(t, is_warp ? s.sums[t.lane] : static_cast<u64>(0));
  all.first =
      0xffffffffu - static_cast<u32>(warp_max(t, is_warp ? s.places[t.lane] : static_cast<u64>(0)));
  block_sync(t);  // before the places are used again
  return all;
}

GPU_FN void sample(Thread t, const GPU_CONST SampleParams& p, const GPU_GLOBAL float* logits,
                   const GPU_GLOBAL SampleRow* rows, const GPU_GLOBAL i32* mask_ids,
                   const GPU_GLOBAL SampleSeen* seen, const GPU_GLOBAL SampleBias* biases,
                   GPU_GLOBAL float* workspace, GPU_GLOBAL i32* ids, GPU_GLOBAL float* logprobs,
                   GPU_GLOBAL i32* top_ids, GPU_GLOBAL float* top_logprobs,
                   GPU_SHARED char* scratch) {
  const SampleScratch s = sample_scratch(scratch);
  const GPU_GLOBAL SampleRow* row = rows + t.block.x;
  const u64 first = static_cast<u64>(t.block.x) * p.vocab;
  SampleWords words;
  words.logits = logits + first;
  words.vocab = p.vocab;
  const u32 each = ((p.vocab + t.num_warps - 1) / t.num_warps + kWarpSize - 1) / kWarpSize;
  words.begin = t.warp * each * kWarpSize < p.vocab ? t.warp * each * kWarpSize : p.vocab;
  words.end = words.begin + each * kWarpSize < p.vocab ? words.begin + each * kWarpSize : p.vocab;
  words.scale = 1.44269504f;
  if (row->allowed_count + row->suppressed_count + row->seen_count + row->bias_count > 0) {
    change_logits(t, row, p.vocab, logits + first, mask_ids, seen, biases, workspace + first);
    words.logits = workspace + first;
  }
  float own_largest = as_f32(0xff800000u);
  for (u32 i = words.begin + t.lane; i < words.end; i += kSampleChunk * kWarpSize) {
    const SampleLogits loaded = load_logits(words, i);
    GPU_UNROLL
    for (u32 j = 0; j < kSampleChunk; ++j) own_largest = gpu_max(own_largest, loaded.value[j]);
  }
  words.largest = block_max(t, own_largest, s.totals);
  const bool is_usual = is_finite(words.largest);
  const bool draws = is_usual && row->temperature > 0;
  if (draws) words.scale = 1.44269504f / row->temperature;
  const u32 top_k = row->top_k < p.vocab ? row->top_k : 0;
  const bool cuts = draws && (top_k > 0 || row->top_p < 1.0f);
  const float min_p = row->min_p > 0 ? gpu_min(row->min_p, 1.0f) : 0.0f;
  const SampleTotals all = total_words(t, words, draws, cuts ? 0.0f : min_p, s);
  u32 id = all.first;
  float logprob = 0;
  if (!is_usual) {
    // Either +infinity is there, or nothing is left at all.
    if (!(words.largest > 0)) {
      id = lowest_allowed(t, row, p.vocab, mask_ids, s.places);
      logprob = as_f32(0xff800000u);
    }
    for (u32 n = t.index; n < p.max_top; n += t.num_warps * kWarpSize) {
      const bool is_word = n == 0 && row->num_top > 0;
      top_ids[t.block.x * p.max_top + n] = is_word ? static_cast<i32>(id) : -1;
      top_logprobs[t.block.x * p.max_top + n] = is_word ? logprob : as_f32(0xff800000u);
    }
  } else {
    const float log_total = gpu_log(all.total);
    list_top(t, words, row->num_top, p.max_top, log_total, top_ids + t.block.x * p.max_top,
             top_logprobs + t.block.x * p.max_top, s.places);
    if (draws) {
      // Should nothing be left to draw from, it is the likeliest.
      if (t.index == 0) *s.chosen = id;
      SampleCut cut;
      cut.boundary = 0;
      cut.num_listed = 0;
      if (cuts) {
        cut = cut_words(t, words, own_largest, all.mass, top_k, row->top_p, s);
        if (cut.num_listed == 0) sum_drawn(t, words, cut.boundary, min_p, s);
      }
      block_sync(t);
      const u64 random = random_bits(row);
      id = cut.num_listed > 0 ? draw_listed(t, random, words, cut, min_p, s)
                              : draw(t, random, words, cut.boundary, min_p, s);
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
