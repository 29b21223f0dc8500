#pragma once

// Where top-k and top-p cut a row's listed words.

#include "sample_row.h"

namespace fovea {
namespace kernels {

constexpr GPU_CONST u32 kSampleList = 1024;  // words that are looked at one by one
constexpr GPU_CONST u32 kSampleShort = 256;  // so few that each is compared with all others
constexpr GPU_CONST u32 kSampleScratchBytes =
    8 * (kSampleList + 2 * kWarpSize + 4) + 4 * (3 * kSampleBuckets + kSampleShort + 2);

/// The block's shared memory.
struct SampleScratch {
  GPU_SHARED u64* list;     // [kSampleList] ranks
  GPU_SHARED u64* sums;     // [kWarpSize] of warps
  GPU_SHARED u64* places;   // [kWarpSize] of warps
  GPU_SHARED u64* results;  // [4]
  GPU_SHARED u32* counts;   // [kSampleBuckets], and their masses in halves
  GPU_SHARED u32* low;
  GPU_SHARED u32* high;
  GPU_SHARED u32* masses;  // [kSampleShort] of the list
  GPU_SHARED u32* counter;
  GPU_SHARED u32* chosen;
  GPU_SHARED u64* segments;  // [num_segments] what they count in the draw
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
  s.counter = s.masses + kSampleShort;
  s.chosen = s.counter + 1;
  s.segments = reinterpret_cast<GPU_SHARED u64*>(s.chosen + 1);
  return s;
}

/// How many words of a segment are looked at: the listed ones, or all.
GPU_FN u32 count_words(SampleWords words, u32 segment) {
  const u32 listed = words.segments[segment].count;
  const u32 left = words.vocab - segment * kSegmentWords;
  return listed <= kSegmentList ? listed : left < kSegmentWords ? left : kSegmentWords;
}
/// Of these, the ranks of i, i + 32, i + 64, ...; behind the end those of NaN.
constexpr GPU_CONST u32 kSampleChunk = 8;
struct SampleRanks {
  u64 value[kSampleChunk];
};
GPU_FN SampleRanks load_ranks(SampleWords words, u32 segment, u32 count, u32 i) {
  SampleRanks ranks;
  if (words.segments[segment].count <= kSegmentList) {
    const GPU_GLOBAL u64* listed = words.listed + segment * kSegmentList;
    GPU_UNROLL
    for (u32 j = 0; j < kSampleChunk; ++j) {
      const u32 n = i + j * kWarpSize;
      ranks.value[j] = n < count ? rank_of_listed(listed[n]) : 0;
    }
  } else {
    GPU_UNROLL
    for (u32 j = 0; j < kSampleChunk; ++j) {
      const u32 n = i + j * kWarpSize, id = segment * kSegmentWords + n;
      ranks.value[j] = n < count ? ranked(words.logits[id], id) : 0;
    }
  }
  return ranks;
}

GPU_FN u32 mass_of_rank(SampleWords words, u64 rank) {
  return whole_mass(relative_mass(distance(words, number_of(rank))));
}

// ---- buckets of words by their distance from the likeliest

/// A bucket, and the words in all buckets before it.
struct SampleBucket {
  u32 bucket;  // kSampleBuckets: there is none
  u64 count_before, mass_before;
  u64 count;  // of words in all buckets together
};

GPU_FN void fill_buckets(Thread t, SampleWords words, SampleRuler ruler, SampleScratch s) {
  block_sync(t);
  for (u32 b = t.index; b < 3 * kSampleBuckets; b += t.num_warps * kWarpSize) s.counts[b] = 0;
  block_sync(t);
  for (u32 segment = t.warp; segment < words.num_segments; segment += t.num_warps) {
    const u32 count = count_words(words, segment);
    for (u32 i = t.lane; i < count; i += kSampleChunk * kWarpSize) {
      const SampleRanks ranks = load_ranks(words, segment, count, i);
      GPU_UNROLL
      for (u32 j = 0; j < kSampleChunk; ++j) {
        const float away = distance(words, number_of(ranks.value[j]));
        if (!(away <= ruler.reach)) continue;
        const u32 bucket = bucket_of(ruler, away);
        const u32 mass = whole_mass(relative_mass(away));
        atomic_add_u32(s.counts + bucket, 1);
        const u32 before = atomic_add_u32(s.low + bucket, mass);
        if (before + mass < before) atomic_add_u32(s.high + bucket, 1);
      }
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

/// The ranks in the list of the words within `reach`: those of one bucket, or all. The number of
/// them, of which the list has no more than fit.
GPU_FN u32 collect(Thread t, SampleWords words, float reach, SampleRuler ruler, bool all,
                   u32 bucket, SampleScratch s) {
  block_sync(t);
  if (t.index == 0) *s.counter = 0;
  block_sync(t);
  for (u32 segment = t.warp; segment < words.num_segments; segment += t.num_warps) {
    const u32 count = count_words(words, segment);
    for (u32 i = t.lane; i < count; i += kSampleChunk * kWarpSize) {
      const SampleRanks ranks = load_ranks(words, segment, count, i);
      GPU_UNROLL
      for (u32 j = 0; j < kSampleChunk; ++j) {
        const float logit = number_of(ranks.value[j]);
        const float away = distance(words, logit);
        if (!(away <= reach) || !is_finite(logit)) continue;
        if (!all && bucket_of(ruler, away) != bucket) continue;
        const u32 place = atomic_add_u32(s.counter, 1);
        if (place < kSampleList) s.list[place] = ranks.value[j];
      }
    }
  }
  block_sync(t);
  return *s.counter;
}

/// Words, or their mass, from `rank` up: of the `count` ranks of the list, or of every word that is
/// looked at where count is 0.
GPU_FN u64 sum_from(Thread t, SampleWords words, u32 count, bool by_mass, u64 rank,
                    SampleScratch s) {
  u64 sum = 0;
  for (u32 i = t.index; i < count; i += t.num_warps * kWarpSize) {
    if (s.list[i] >= rank) sum += by_mass ? mass_of_rank(words, s.list[i]) : 1;
  }
  for (u32 segment = t.warp; count == 0 && segment < words.num_segments; segment += t.num_warps) {
    const u32 of_segment = count_words(words, segment);
    for (u32 i = t.lane; i < of_segment; i += kSampleChunk * kWarpSize) {
      const SampleRanks ranks = load_ranks(words, segment, of_segment, i);
      GPU_UNROLL
      for (u32 j = 0; j < kSampleChunk; ++j) {
        if (ranks.value[j] >= rank) sum += by_mass ? mass_of_rank(words, ranks.value[j]) : 1;
      }
    }
  }
  return block_sum(t, sum, s.sums);
}

// Words in the order of their ranks, likeliest first, are cut where what lies before passes
// `limit`: the number of words, or their mass. `before` lies before all that are looked at: the
// `count` ranks of the list, or every word where count is 0. The rank of the last word that stays
// is found bit by bit.
GPU_FN u64 search_boundary(Thread t, SampleWords words, u32 count, bool by_mass, u64 before,
                           u64 limit, SampleScratch s) {
  u32 id_bits = 1;
  while (id_bits < 32 && (words.vocab >> id_bits) > 0) ++id_bits;
  u64 boundary = 0;
  for (u32 step = 0; step < 32 + id_bits; ++step) {
    // All ids leave the same upper bits of the lower half: those need no search.
    if (step == 32) boundary |= (0xffffffffu >> id_bits) << id_bits;
    const u32 bit = step < 32 ? 63 - step : id_bits - 1 - (step - 32);
    const u64 above = (boundary | ((static_cast<u64>(1) << bit) - 1)) + 1;
    const u64 passed = sum_from(t, words, count, by_mass, above, s);
    if (before + passed > limit) boundary |= static_cast<u64>(1) << bit;
  }
  return boundary;
}

// A few lanes share the comparisons of one word of a short list.
constexpr GPU_CONST u32 kSampleShare = 8;
GPU_FN u64 sum_shares(Thread t, u64 value) {
  GPU_UNROLL
  for (u32 mask = 1; mask < kSampleShare; mask *= 2) value += shuffle_xor(t, value, mask);
  return value;
}

// search_boundary for a list of at most kSampleShort ranks: each is compared with all others.
GPU_FN u64 compare_boundary(Thread t, SampleWords words, u32 count, bool by_mass, u64 before,
                            u64 limit, SampleScratch s) {
  const u32 num_threads = t.num_warps * kWarpSize;
  block_sync(t);
  for (u32 i = t.index; i < count; i += num_threads) {
    s.masses[i] = by_mass ? mass_of_rank(words, s.list[i]) : 1;
  }
  block_sync(t);
  u64 lowest = 0;  // its complement: the lower the rank, the larger
  for (u32 first = 0; first < count; first += num_threads / kSampleShare) {
    const u32 i = first + t.index / kSampleShare;
    const u64 rank = i < count ? s.list[i] : ~static_cast<u64>(0);
    u64 passed = 0;
    for (u32 j = t.index % kSampleShare; j < count; j += kSampleShare) {
      passed += s.list[j] > rank ? s.masses[j] : 0;
    }
    passed = before + sum_shares(t, passed);
    if (passed <= limit && ~rank > lowest) lowest = ~rank;
  }
  return ~block_max(t, lowest, s.sums);
}

/// What top-k and top-p leave.
struct SampleCut {
  u64 boundary;    // the rank of the last word
  u32 num_listed;  // 0, or the list holds everything that is left, and perhaps more
};

/// `num_words` are looked at; `total` is the mass of all words. What is kept is within `reach`, if
/// it is not all that counts. At least one of top-k and top-p cuts.
GPU_FN SampleCut cut_words(Thread t, SampleWords words, SampleMode mode, u32 num_words, u64 total,
                           float reach, SampleScratch s) {
  const u64 share =
      mode.top_p < 1.0f ? static_cast<u64>(gpu_max(mode.top_p, 0.0f) * 4294967296.0f) << 32 : 0;
  const SampleRuler ruler = ruler_to(reach);
  SampleCut cut;
  cut.boundary = 0;
  cut.num_listed = 0;
  if (num_words <= kSampleShort) {
    cut.num_listed = collect(t, words, reach, ruler, true, 0, s);
  } else {
    fill_buckets(t, words, ruler, s);
  }
  u64 kept = total;
  for (u32 by_mass = mode.top_k > 0 ? 0 : 1; by_mass < (mode.top_p < 1.0f ? 2u : 1u); ++by_mass) {
    const u64 limit = by_mass != 0 ? mul_hi(share, kept) : mode.top_k - 1;
    u64 before = 0, mass_before = 0;
    u32 count = cut.num_listed;
    if (count == 0) {
      const SampleBucket found = find_bucket(t, by_mass != 0, limit, s);
      if (found.bucket == kSampleBuckets) continue;  // what is kept reaches further than counts
      const bool all = found.count <= kSampleShort;
      const bool fits = all || s.counts[found.bucket] <= kSampleList;
      if (fits) count = collect(t, words, reach, ruler, all, found.bucket, s);
      if (all) cut.num_listed = count;
      if (fits && !all) {
        before = by_mass != 0 ? found.mass_before : found.count_before;
        mass_before = found.mass_before;
      }
    }
    cut.boundary = count > 0 && count <= kSampleShort
                       ? compare_boundary(t, words, count, by_mass != 0, before, limit, s)
                       : search_boundary(t, words, count, by_mass != 0, before, limit, s);
    if (by_mass == 0) kept = mass_before + sum_from(t, words, count, true, cut.boundary, s);
  }
  return cut;
}

}  // namespace kernels
}  // namespace fovea
