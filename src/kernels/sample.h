#pragma once

// The sampler: penalties, biases, masks, temperature, top-k, top-p, min-p, the draw, log-probs and
// the likeliest words, in one kernel. One block for each row of logits.
//
// Probabilities are whole numbers, of 2^-40 of the likeliest word. Their sums are exact, so that
// the answer does not depend on the number of threads or on the order in which they add.

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
  u32 max_top;  // words that a row of top_ids has room for; 0 = there are none
  u32 pad0_, pad1_;
};

constexpr GPU_CONST u32 kSampleList = 2048;  // words that the search for a boundary keeps at hand
constexpr GPU_CONST u32 kSampleSums = 32;    // numbers of 8 bytes for sums over a block
constexpr GPU_CONST u32 kSampleScratchBytes = 8 * (kSampleList + kSampleSums + 1);
constexpr GPU_CONST u32 kNumPivots = 8;

/// One row: logits after the changes, and what a word counts.
struct SampleWords {
  const GPU_GLOBAL float* logits;
  u32 vocab;
  float largest;
  float scale;  // powers of two of a logit: log2(e) / temperature
};
// Relative to the likeliest word; NaN and -infinity count nothing.
GPU_FN float relative_mass(SampleWords words, float logit) {
  const float mass = gpu_exp2((logit - words.largest) * words.scale);
  return is_nan(mass) ? 0.0f : mass;
}
GPU_FN u64 whole_mass(float mass) { return static_cast<u64>(mass * 1099511627776.0f); }

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

// Words in the order of their ranks, likeliest first, are cut where what lies before passes
// `limit`: the number of words, or their mass. The rank of the last word that stays is found bit by
// bit. Words of rank below `floor` count nothing. Looks at the `count` ranks of `list` if there are
// any, else at every word.
GPU_FN u64 find_boundary(Thread t, SampleWords words, GPU_SHARED const u64* list, u32 count,
                         u64 floor, bool by_mass, u64 limit, GPU_SHARED u64* sums) {
  const u32 num_threads = t.num_warps * kWarpSize;
  const u32 num_words = count > 0 ? count : words.vocab;
  u32 id_bits = 1;
  while (id_bits < 32 && (words.vocab >> id_bits) > 0) ++id_bits;
  u64 boundary = 0;
  for (u32 step = 0; step < 32 + id_bits; ++step) {
    // All ids leave the same upper bits of the lower half: those need no search.
    if (step == 32) boundary |= (0xffffffffu >> id_bits) << id_bits;
    const u32 bit = step < 32 ? 63 - step : id_bits - 1 - (step - 32);
    const u64 candidate = boundary | ((static_cast<u64>(1) << bit) - 1);
    u64 before = 0;
    for (u32 i = t.index; i < num_words; i += num_threads) {
      const u64 rank = count > 0 ? list[i] : ranked(words.logits[i], i);
      if (rank <= candidate || rank < floor) continue;
      before += by_mass ? whole_mass(relative_mass(words, number_of(rank))) : 1;
    }
    before = block_sum(t, before, sums);
    if (before > limit) boundary |= static_cast<u64>(1) << bit;
  }
  return boundary;
}

// Collects the ranks of a set of words that holds everything top-k and top-p may keep, if one of
// the pivots gives a set that is small enough. Their number; 0 = there is none.
GPU_FN u32 collect_likely(Thread t, SampleWords words, u32 top_k, u64 mass_limit,
                          GPU_SHARED u64* list, GPU_SHARED u64* sums, GPU_SHARED u32* counter) {
  const u32 num_threads = t.num_warps * kWarpSize;
  // Distances from the likeliest word in powers of two.
  const float kPivots[kNumPivots] = {0.5f, 1.0f, 2.0f, 3.0f, 5.0f, 8.0f, 12.0f, 20.0f};
  u32 counts[kNumPivots];
  u64 masses[kNumPivots];
  GPU_UNROLL
  for (u32 j = 0; j < kNumPivots; ++j) {
    counts[j] = 0;
    masses[j] = 0;
  }
  for (u32 i = t.index; i < words.vocab; i += num_threads) {
    const float logit = words.logits[i];
    const float distance = (words.largest - logit) * words.scale;
    if (!(distance <= 20.0f)) continue;
    const u64 mass = whole_mass(relative_mass(words, logit));
    GPU_UNROLL
    for (u32 j = 0; j < kNumPivots; ++j) {
      const bool is_near = distance <= kPivots[j];
      counts[j] += is_near ? 1 : 0;
      masses[j] += is_near ? mass : 0;
    }
  }
  float reach = 0;
  GPU_UNROLL
  for (u32 j = 0; j < kNumPivots; ++j) {
    const u64 count = block_sum(t, static_cast<u64>(counts[j]), sums);
    const u64 mass = block_sum(t, masses[j], sums);
    const bool holds_all = top_k > 0 ? count >= top_k : mass > mass_limit;
    if (reach == 0 && holds_all && count <= kSampleList) reach = kPivots[j];
  }
  if (reach == 0) return 0;
  if (t.index == 0) *counter = 0;
  block_sync(t);
  for (u32 i = t.index; i < words.vocab; i += num_threads) {
    const float logit = words.logits[i];
    if ((words.largest - logit) * words.scale <= reach) {
      list[atomic_add_u32(counter, 1)] = ranked(logit, i);
    }
  }
  block_sync(t);
  return *counter;
}

// The rank of the last word that top-k and top-p keep. `total` is the mass of all words.
GPU_FN u64 last_kept(Thread t, const GPU_GLOBAL SampleRow* row, SampleWords words, u64 total,
                     GPU_SHARED char* scratch) {
  GPU_SHARED u64* list = reinterpret_cast<GPU_SHARED u64*>(scratch);
  GPU_SHARED u64* sums = list + kSampleList;
  GPU_SHARED u32* counter = reinterpret_cast<GPU_SHARED u32*>(sums + kSampleSums);
  const u32 top_k = row->top_k < words.vocab ? row->top_k : 0;
  const bool has_top_p = row->top_p < 1.0f;
  if (top_k == 0 && !has_top_p) return 0;
  const float top_p = row->top_p > 0 ? row->top_p : 0.0f;
  const u64 share = has_top_p ? static_cast<u64>(top_p * 4294967296.0f) << 32 : 0;
  const u32 count = collect_likely(t, words, top_k, mul_hi(share, total), list, sums, counter);
  u64 floor = 0;
  if (top_k > 0) {
    floor = find_boundary(t, words, list, count, 0, false, top_k - 1, sums);
  }
  if (!has_top_p) return floor;
  if (top_k > 0) {  // top-p takes its share of what top-k left
    const u32 num_words = count > 0 ? count : words.vocab;
    u64 kept = 0;
    for (u32 i = t.index; i < num_words; i += t.num_warps * kWarpSize) {
      const u64 rank = count > 0 ? list[i] : ranked(words.logits[i], i);
      if (rank >= floor) kept += whole_mass(relative_mass(words, number_of(rank)));
    }
    total = block_sum(t, kept, sums);
  }
  const u64 boundary =
      find_boundary(t, words, list, count, floor, true, mul_hi(share, total), sums);
  return boundary > floor ? boundary : floor;
}

// What a word counts in the draw.
GPU_FN u64 drawn_mass(SampleWords words, u32 id, u64 boundary, float min_p) {
  if (id >= words.vocab) return 0;
  const float logit = words.logits[id];
  if (ranked(logit, id) < boundary) return 0;
  const float mass = relative_mass(words, logit);
  return mass < min_p ? 0 : whole_mass(mass);
}

// The first word, by ascending id, at which the mass summed so far passes the random share of all
// of it. Each warp takes a stretch of ids.
GPU_FN u32 draw(Thread t, const GPU_GLOBAL SampleRow* row, SampleWords words, u64 boundary,
                GPU_SHARED u64* sums, GPU_SHARED u32* chosen) {
  const float min_p = row->min_p > 0 ? gpu_min(row->min_p, 1.0f) : 0.0f;
  const u32 stretch =
      ((words.vocab + t.num_warps - 1) / t.num_warps + kWarpSize - 1) / kWarpSize * kWarpSize;
  const u32 begin = t.warp * stretch;
  u64 own = 0;
  for (u32 i = t.lane; i < stretch; i += kWarpSize) {
    own += drawn_mass(words, begin + i, boundary, min_p);
  }
  own = warp_sum(t, own);
  block_sync(t);
  if (t.lane == 0) sums[t.warp] = own;
  block_sync(t);
  u64 total = 0;
  u64 before = 0;
  for (u32 w = 0; w < t.num_warps; ++w) {
    if (w == t.warp) before = total;
    total += sums[w];
  }
  const u64 target = mul_hi(random_bits(row), total);
  if (target >= before && target - before < own) {
    for (u32 i = 0; i < stretch; i += kWarpSize) {
      u64 sum = drawn_mass(words, begin + i + t.lane, boundary, min_p);
      for (u32 distance = 1; distance < kWarpSize; distance *= 2) {
        const u64 left = shuffle(t, sum, (t.lane - distance) & (kWarpSize - 1));
        if (t.lane >= distance) sum += left;
      }
      const bool passes = before + sum > target;
      const u64 first = warp_max(t, static_cast<u64>(passes ? kWarpSize - t.lane : 0));
      if (first > 0) {
        if (t.lane == 0) *chosen = begin + i + kWarpSize - static_cast<u32>(first);
        break;
      }
      before += shuffle(t, sum, kWarpSize - 1);
    }
  }
  block_sync(t);
  return *chosen;
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

GPU_FN void sample(Thread t, const GPU_CONST SampleParams& p, const GPU_GLOBAL float* logits,
                   const GPU_GLOBAL SampleRow* rows, const GPU_GLOBAL i32* mask_ids,
                   const GPU_GLOBAL SampleSeen* seen, const GPU_GLOBAL SampleBias* biases,
                   GPU_GLOBAL float* workspace, GPU_GLOBAL i32* ids, GPU_GLOBAL float* logprobs,
                   GPU_GLOBAL i32* top_ids, GPU_GLOBAL float* top_logprobs,
                   GPU_SHARED char* scratch) {
  GPU_SHARED u64* sums = reinterpret_cast<GPU_SHARED u64*>(scratch) + kSampleList;
  GPU_SHARED u32* chosen = reinterpret_cast<GPU_SHARED u32*>(sums + kSampleSums);
  const GPU_GLOBAL SampleRow* row = rows + t.block.x;
  const u32 num_threads = t.num_warps * kWarpSize;
  const u64 first = static_cast<u64>(t.block.x) * p.vocab;
  SampleWords words;
  words.logits = logits + first;
  words.vocab = p.vocab;
  if (row->allowed_count + row->suppressed_count + row->seen_count + row->bias_count > 0) {
    change_logits(t, row, p.vocab, logits + first, mask_ids, seen, biases, workspace + first);
    words.logits = workspace + first;
  }
  u64 best = 0;
  for (u32 i = t.index; i < p.vocab; i += num_threads) {
    const u64 rank = ranked(words.logits[i], i);
    if (rank > best) best = rank;
  }
  best = block_max(t, best, sums);
  words.largest = number_of(best);
  words.scale = 1.44269504f;
  u32 id = place_of(best);
  float logprob = 0;
  float log_total = 0;
  if (!is_finite(words.largest)) {
    // Either +infinity is there, or nothing is left at all.
    if (!(words.largest > 0)) {
      id = lowest_allowed(t, row, p.vocab, mask_ids, sums);
      logprob = as_f32(0xff800000u);
    }
    for (u32 n = t.index; n < p.max_top; n += num_threads) {
      const bool is_word = n == 0 && row->num_top > 0;
      top_ids[t.block.x * p.max_top + n] = is_word ? static_cast<i32>(id) : -1;
      top_logprobs[t.block.x * p.max_top + n] = is_word ? logprob : as_f32(0xff800000u);
    }
  } else {
    u64 own = 0;
    for (u32 i = t.index; i < p.vocab; i += num_threads) {
      own += whole_mass(relative_mass(words, words.logits[i]));
    }
    const u64 total = block_sum(t, own, sums);
    log_total = gpu_log(static_cast<float>(total) * 9.094947017729282e-13f);
    list_top(t, words, row->num_top, p.max_top, log_total, top_ids + t.block.x * p.max_top,
             top_logprobs + t.block.x * p.max_top, sums);
    if (row->temperature > 0) {
      words.scale = 1.44269504f / row->temperature;
      u64 own_mass = 0;
      for (u32 i = t.index; i < p.vocab; i += num_threads) {
        own_mass += whole_mass(relative_mass(words, words.logits[i]));
      }
      const u64 mass = block_sum(t, own_mass, sums);
      const u64 boundary = last_kept(t, row, words, mass, scratch);
      id = draw(t, row, words, boundary, sums, chosen);
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
