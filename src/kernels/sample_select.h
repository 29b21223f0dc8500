#pragma once

// What the sampler knows of a row of logits, and where top-k and top-p cut it.
//
// Probabilities are whole numbers, of 2^-31 of the likeliest word. Their sums are exact, so that
// the answer does not depend on the number of threads or on the order in which they add.

#include "common.h"

namespace fovea {
namespace kernels {

constexpr GPU_CONST u32 kSampleBuckets = 1024;
constexpr GPU_CONST u32 kSampleList = 1024;      // words that are looked at one by one
constexpr GPU_CONST u32 kSampleShort = 256;      // so few that each is compared with all others
constexpr GPU_CONST u32 kSampleChunk = 8;        // words that a thread loads at a time
constexpr GPU_CONST float kSampleReach = 32.0f;  // powers of two: words further off count nothing
constexpr GPU_CONST u32 kSampleScratchBytes =
    8 * (kSampleList + 2 * kWarpSize + 4) + 4 * (3 * kSampleBuckets + kSampleShort + kWarpSize + 2);

/// The block's shared memory.
struct SampleScratch {
  GPU_SHARED u64* list;     // [kSampleList] ranks
  GPU_SHARED u64* sums;     // [kWarpSize] of warps
  GPU_SHARED u64* places;   // [kWarpSize] of warps
  GPU_SHARED u64* results;  // [4]
  GPU_SHARED u32* counts;   // [kSampleBuckets], and their masses in halves
  GPU_SHARED u32* low;
  GPU_SHARED u32* high;
  GPU_SHARED u32* masses;    // [kSampleShort] of the list
  GPU_SHARED float* totals;  // [kWarpSize] of warps
  GPU_SHARED u32* counter;
  GPU_SHARED u32* chosen;
};
GPU_FN SampleScratch sample_scratch(GPU_SHARED char* scratch) {
  SampleScratch s;
  s.list = reinterpret_cast<GPU_SHARED u64*>(scratch);
  s.sums = s.list + kSampleList;
  s.places = s.sums + kWarpSize;
  s.results = s.places + kWarpSize;
  s.counts = reinterpret_cast<GPU_SHARED u32*>(s.results + 4);
  s.low = s.counts + kSampleBuckets;
  s.high = s.low + kSampleBuckets;
  s.masses = s.high + kSampleBuckets;
  s.totals = reinterpret_cast<GPU_SHARED float*>(s.masses + kSampleShort);
  s.counter = reinterpret_cast<GPU_SHARED u32*>(s.totals + kWarpSize);
  s.chosen = s.counter + 1;
  return s;
}

/// One row: logits after the changes, and what a word counts. A warp has the ids from `begin` up to
/// `end`, its lanes take turns at them.
struct SampleWords {
  const GPU_GLOBAL float* logits;
  u32 vocab;
  u32 begin, end;
  float largest;
  float scale;  // powers of two of a logit: log2(e) / temperature
};
/// Relative to the likeliest word; NaN and -infinity count nothing.
GPU_FN float relative_mass(SampleWords words, float logit) {
  return gpu_max(gpu_exp2((logit - words.largest) * words.scale), 0.0f);
}
GPU_FN u32 whole_mass(float mass) { return static_cast<u32>(gpu_fma(mass, 2147483648.0f, 0.5f)); }
/// How far a word is from the likeliest, in powers of two; NaN for NaN.
GPU_FN float distance(SampleWords words, float logit) {
  return (words.largest - logit) * words.scale;
}

/// Words i, i + 32, i + 64, ... of a warp; NaN behind its end.
struct SampleLogits {
  float value[kSampleChunk];
};
GPU_FN SampleLogits load_logits(SampleWords words, u32 i) {
  SampleLogits loaded;
  GPU_UNROLL
  for (u32 j = 0; j < kSampleChunk; ++j) {
    const u32 id = i + j * kWarpSize;
    loaded.value[j] = id < words.end ? words.logits[id] : as_f32(0x7fc00000u);
  }
  return loaded;
}

/// The sum of `value` over the lanes before this one.
GPU_FN u64 sum_before(Thread t, u64 value) {
  u64 sum = value;
  for (u32 step = 1; step < kWarpSize; step *= 2) {
    const u64 left = shuffle(t, sum, (t.lane - step) & (kWarpSize - 1));
    if (t.lane >= step) sum += left;
  }
  return sum - value;
}
/// The first lane for which `holds`; kWarpSize when there is none.
GPU_FN u32 first_lane(Thread t, bool holds) {
  return kWarpSize -
         static_cast<u32>(warp_max(t, static_cast<u64>(holds ? kWarpSize - t.lane : 0)));
}

// ---- buckets of words by their distance from the likeliest

/// A bucket, and the words in all buckets before it.
struct SampleBucket {
  u32 bucket;  // kSampleBuckets: there is none
  u64 count_before, mass_before;
  u64 count;  // of words in all buckets together
};

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

GPU_FN void clear_buckets(Thread t, SampleScratch s) {
  block_sync(t);
  for (u32 b = t.index; b < 3 * kSampleBuckets; b += t.num_warps * kWarpSize) s.counts[b] = 0;
  block_sync(t);
}

GPU_FN void fill_buckets(Thread t, SampleWords words, SampleRuler ruler, SampleScratch s) {
  clear_buckets(t, s);
  for (u32 i = words.begin + t.lane; i < words.end; i += kSampleChunk * kWarpSize) {
    const SampleLogits logits = load_logits(words, i);
    GPU_UNROLL
    for (u32 j = 0; j < kSampleChunk; ++j) {
      const float away = distance(words, logits.value[j]);
      if (!(away <= ruler.reach)) continue;
      const u32 bucket = bucket_of(ruler, away);
      const u32 mass = whole_mass(relative_mass(words, logits.value[j]));
      atomic_add_u32(s.counts + bucket, 1);
      const u32 before = atomic_add_u32(s.low + bucket, mass);
      if (before + mass < before) atomic_add_u32(s.high + bucket, 1);
    }
  }
  block_sync(t);
}

// The bucket with the word at which what lies before, words or mass, passes `limit`.
GPU_FN SampleBucket find_bucket(Thread t, bool by_mass, u64 limit, SampleScratch s) {
  constexpr u32 kEach = kSampleBuckets / kWarpSize;
  if (t.warp == 0) {
    u64 count = 0, mass = 0;
    for (u32 j = 0; j < kEach; ++j) {
      // Lanes start at different places, so that they meet in different banks.
      const u32 b = t.lane * kEach + ((j + t.lane) & (kEach - 1));
      count += s.counts[b];
      mass += (static_cast<u64>(s.high[b]) << 32) | s.low[b];
    }
    const u64 count_before = sum_before(t, count), mass_before = sum_before(t, mass);
    const u64 before = by_mass ? mass_before : count_before;
    const u32 lane = first_lane(t, before <= limit && limit - before < (by_mass ? mass : count));
    const u64 all = shuffle(t, count_before + count, kWarpSize - 1);
    u32 bucket = kSampleBuckets;
    u64 bucket_count = 0, bucket_mass = 0;
    if (lane < kWarpSize) {
      const u32 b = lane * kEach + t.lane;
      const u64 c = s.counts[b], m = (static_cast<u64>(s.high[b]) << 32) | s.low[b];
      const u64 c_before = shuffle(t, count_before, lane) + sum_before(t, c);
      const u64 m_before = shuffle(t, mass_before, lane) + sum_before(t, m);
      const u64 at = by_mass ? m_before : c_before;
      const u32 found = first_lane(t, at <= limit && limit - at < (by_mass ? m : c));
      bucket = lane * kEach + found;
      bucket_count = shuffle(t, c_before, found);
      bucket_mass = shuffle(t, m_before, found);
    }
    if (t.lane == 0) {
      s.results[0] = bucket;
      s.results[1] = bucket_count;
      s.results[2] = bucket_mass;
      s.results[3] = all;
    }
  }
  block_sync(t);
  SampleBucket found;
  found.bucket = static_cast<u32>(s.results[0]);
  found.count_before = s.results[1];
  found.mass_before = s.results[2];
  found.count = s.results[3];
  block_sync(t);
  return found;
}

// ---- single words

// The ranks of the words of one bucket, or of all buckets, in the list, and their number. No more
// than the list holds.
GPU_FN u32 collect(Thread t, SampleWords words, SampleRuler ruler, bool all, u32 bucket,
                   SampleScratch s) {
  block_sync(t);
  if (t.index == 0) *s.counter = 0;
  block_sync(t);
  for (u32 i = words.begin + t.lane; i < words.end; i += kSampleChunk * kWarpSize) {
    const SampleLogits logits = load_logits(words, i);
    GPU_UNROLL
    for (u32 j = 0; j < kSampleChunk; ++j) {
      const float away = distance(words, logits.value[j]);
      if (!(away <= ruler.reach) || (!all && bucket_of(ruler, away) != bucket)) continue;
      const u32 place = atomic_add_u32(s.counter, 1);
      if (place < kSampleList) s.list[place] = ranked(logits.value[j], i + j * kWarpSize);
    }
  }
  block_sync(t);
  return *s.counter < kSampleList ? *s.counter : kSampleList;
}

GPU_FN u32 mass_of_rank(SampleWords words, u64 rank) {
  return whole_mass(relative_mass(words, number_of(rank)));
}

// Words in the order of their ranks, likeliest first, are cut where what lies before passes
// `limit`: the number of words, or their mass. `before` lies before all that are looked at: the
// `count` ranks of the list, or every word where count is 0. The rank of the last word that stays
// is found bit by bit.
GPU_FN u64 search_boundary(Thread t, SampleWords words, u32 count, bool by_mass, u64 before,
                           u64 limit, SampleScratch s) {
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
    u64 passed = 0;
    for (u32 i = t.index; i < num_words; i += num_threads) {
      const u64 rank = count > 0 ? s.list[i] : ranked(words.logits[i], i);
      if (rank > candidate) passed += by_mass ? mass_of_rank(words, rank) : 1;
    }
    passed = block_sum(t, passed, s.sums);
    if (before + passed > limit) boundary |= static_cast<u64>(1) << bit;
  }
  return boundary;
}

// The same for a list of at most kSampleShort ranks: each is compared with all others.
GPU_FN u64 compare_boundary(Thread t, SampleWords words, u32 count, bool by_mass, u64 before,
                            u64 limit, SampleScratch s) {
  const u32 num_threads = t.num_warps * kWarpSize;
  block_sync(t);
  for (u32 i = t.index; i < count; i += num_threads) {
    s.masses[i] = by_mass ? mass_of_rank(words, s.list[i]) : 1;
  }
  block_sync(t);
  u64 lowest = 0;  // its complement: the lower the rank, the larger
  for (u32 i = t.index; i < count; i += num_threads) {
    const u64 rank = s.list[i];
    u64 passed = before;
    for (u32 j = 0; j < count; ++j) passed += s.list[j] > rank ? s.masses[j] : 0;
    if (passed <= limit && ~rank > lowest) lowest = ~rank;
  }
  return ~block_max(t, lowest, s.sums);
}

// Mass of the words of the list (of all words where count is 0) from `boundary` up.
GPU_FN u64 mass_from(Thread t, SampleWords words, u32 count, u64 boundary, SampleScratch s) {
  const u32 num_words = count > 0 ? count : words.vocab;
  u64 kept = 0;
  for (u32 i = t.index; i < num_words; i += t.num_warps * kWarpSize) {
    const u64 rank = count > 0 ? s.list[i] : ranked(words.logits[i], i);
    if (rank >= boundary) kept += mass_of_rank(words, rank);
  }
  return block_sum(t, kept, s.sums);
}

/// What top-k and top-p leave.
struct SampleCut {
  u64 boundary;    // the rank of the last word
  u32 num_listed;  // 0, or the list holds everything that is left, and perhaps more
};

// How far the words may be that top-k keeps: at least as far as k threads' largest words are.
GPU_FN float reach_of_top_k(Thread t, SampleWords words, float own_largest, u32 top_k,
                            SampleScratch s) {
  const SampleRuler ruler = ruler_to(kSampleReach);
  clear_buckets(t, s);
  const float away = distance(words, own_largest);
  if (away <= ruler.reach) atomic_add_u32(s.counts + bucket_of(ruler, away), 1);
  block_sync(t);
  const SampleBucket found = find_bucket(t, false, top_k - 1, s);
  if (found.bucket == kSampleBuckets) return kSampleReach;
  return static_cast<float>(found.bucket + 2) / ruler.per_unit;  // rounding stays inside
}

// How far the words may be that top-p keeps: what lies further is less than what it drops.
GPU_FN float reach_of_top_p(SampleWords words, u64 dropped) {
  const float share = static_cast<float>(words.vocab) / static_cast<float>(dropped);
  return gpu_min(kSampleReach, gpu_max(32.0f + 1.44269504f * gpu_log(share), 0.03125f));
}

// `total` is the mass of all words, own_largest the largest logit that this thread has seen in its
// warp's words; every word was seen by one thread. At least one of top_k and top_p cuts.
GPU_FN SampleCut cut_words(Thread t, SampleWords words, float own_largest, u64 total, u32 top_k,
                           float top_p, SampleScratch s) {
  const u64 share = top_p < 1.0f ? static_cast<u64>(gpu_max(top_p, 0.0f) * 4294967296.0f) << 32 : 0;
  const SampleRuler ruler =
      ruler_to(top_k > 0 ? reach_of_top_k(t, words, own_largest, top_k, s)
                         : reach_of_top_p(words, total - mul_hi(share, total)));
  fill_buckets(t, words, ruler, s);
  SampleCut cut;
  cut.boundary = 0;
  cut.num_listed = 0;
  u64 kept = total;
  for (u32 by_mass = top_k > 0 ? 0 : 1; by_mass < (top_p < 1.0f ? 2u : 1u); ++by_mass) {
    const u64 limit = by_mass != 0 ? mul_hi(share, kept) : top_k - 1;
    const SampleBucket found = find_bucket(t, by_mass != 0, limit, s);
    if (found.bucket == kSampleBuckets) continue;  // what is kept reaches further than counts
    u64 before = 0, mass_before = 0;
    u32 count = cut.num_listed;
    if (count == 0) {
      const bool all = found.count <= kSampleShort;
      const bool fits = all || s.counts[found.bucket] <= kSampleList;
      if (fits) count = collect(t, words, ruler, all, found.bucket, s);
      if (all) cut.num_listed = count;
      if (fits && !all) {
        before = by_mass != 0 ? found.mass_before : found.count_before;
        mass_before = found.mass_before;
      }
    }
    cut.boundary = count > 0 && count <= kSampleShort
                       ? compare_boundary(t, words, count, by_mass != 0, before, limit, s)
                       : search_boundary(t, words, count, by_mass != 0, before, limit, s);
    if (by_mass == 0) kept = mass_before + mass_from(t, words, count, cut.boundary, s);
  }
  return cut;
}

}  // namespace kernels
}  // namespace fovea
