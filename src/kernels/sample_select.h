#pragma once

// Where top-k, top-p and min-p cut a row.

#include "sample_row.h"

namespace fovea {
namespace kernels {

constexpr GPU_CONST u32 kSampleList = 1024;   // words that are looked at one by one
constexpr GPU_CONST u32 kSampleBucket = 512;  // of one bucket
constexpr GPU_CONST u32 kSampleShort = 256;   // so few that each is compared with all others
constexpr GPU_CONST u32 kSampleBuckets = 1024;
constexpr GPU_CONST float kSampleReach = 32.0f;  // powers of two: words further off count nothing
constexpr GPU_CONST u32 kSampleScratchBytes =
    8 * (kSampleList + kSampleBucket + 2 * kWarpSize) + 4 * (3 * kSampleBuckets + kSampleShort + 2);
constexpr GPU_CONST u32 kSampleSegmentBytes = 8;  // more for each segment

/// The block's shared memory.
struct SampleScratch {
  GPU_SHARED u64* list;       // [kSampleList] ranks
  GPU_SHARED u64* of_bucket;  // [kSampleBucket] ranks
  GPU_SHARED u64* sums;       // [kWarpSize] of warps
  GPU_SHARED u64* places;     // [kWarpSize] of warps
  GPU_SHARED u32* counts;     // [kSampleBuckets], and their masses in halves
  GPU_SHARED u32* low;
  GPU_SHARED u32* high;
  GPU_SHARED u32* masses;  // [kSampleShort] of a list
  GPU_SHARED u32* counter;
  GPU_SHARED u32* chosen;
  GPU_SHARED u32* segment_low;  // [num_segments] what they count in the draw, in halves
  GPU_SHARED u32* segment_high;
};
GPU_FN SampleScratch sample_scratch(GPU_SHARED char* scratch, u32 num_segments) {
  SampleScratch s;
  s.list = reinterpret_cast<GPU_SHARED u64*>(scratch);
  s.of_bucket = s.list + kSampleList;
  s.sums = s.of_bucket + kSampleBucket;
  s.places = s.sums + kWarpSize;
  s.counts = reinterpret_cast<GPU_SHARED u32*>(s.places + kWarpSize);
  s.low = s.counts + kSampleBuckets;
  s.high = s.low + kSampleBuckets;
  s.masses = s.high + kSampleBuckets;
  s.counter = s.masses + kSampleShort;
  s.chosen = s.counter + 1;
  s.segment_low = s.chosen + 1;
  s.segment_high = s.segment_low + num_segments;
  return s;
}

/// Adds to a 64-bit number in halves; returns nothing.
GPU_FN void atomic_add_mass(GPU_SHARED u32* low, GPU_SHARED u32* high, u32 mass) {
  const u32 before = atomic_add_u32(low, mass);
  if (before + mass < before) atomic_add_u32(high, 1);
}

// ---- words that are near enough
//
// Warps take segments in turns, and of each the groups whose largest logit is within a reach, some
// at a time:
//
//   for (u32 segment = t.warp; segment < words.num_segments; segment += t.num_warps)
//     for (u32 near = near_groups(...); near != 0; near = without_loaded(near))
//       load_near(...)

constexpr GPU_CONST u32 kNearGroups = 8;
constexpr GPU_CONST u32 kNowhere = 0xffffffffu;

/// A bit for each group of a segment.
GPU_FN u32 near_groups(Thread t, SampleWords words, u32 segment, float reach) {
  const float largest = words.group_largest[segment * kSegmentGroups + t.lane];
  return lanes_where(t, distance(words, largest) <= reach);
}
GPU_FN u32 without_loaded(u32 near) {
  GPU_UNROLL
  for (u32 j = 0; j < kNearGroups; ++j) near &= near - 1;
  return near;
}
/// A lane's word of each of the first groups of `near`; NaN where there is none.
struct NearWords {
  float logit[kNearGroups];
  u32 id[kNearGroups];
};
GPU_FN NearWords load_near(Thread t, SampleWords words, u32 segment, u32 near) {
  NearWords loaded;
  GPU_UNROLL
  for (u32 j = 0; j < kNearGroups; ++j) {
    const u32 group = near != 0 ? lowest_bit(near) : 0;
    const u32 id = segment * kSegmentWords + group * kWarpSize + t.lane;
    loaded.id[j] = id;
    loaded.logit[j] = near != 0 && id < words.vocab ? words.logits[id] : as_f32(0x7fc00000u);
    near &= near - 1;
  }
  return loaded;
}

// Of a segment with many such groups all words are looked at, which takes less for each of them:
//
//   for (u32 i = 0; i < kLaneWords; i += kDenseWords) load_dense(...)

constexpr GPU_CONST u32 kDenseWords = 8;

GPU_FN bool is_dense(SampleWords words, u32 segment, u32 near) {
  return words.loads_four && (segment + 1) * kSegmentWords <= words.vocab &&
         count_bits(near) >= kSegmentGroups / 2;
}
/// A lane's words from its word i on.
struct DenseWords {
  float logit[kDenseWords];
};
GPU_FN DenseWords load_dense(Thread t, SampleWords words, u32 segment, u32 i) {
  DenseWords loaded;
  GPU_UNROLL
  for (u32 j = 0; j < kDenseWords; j += 4) {
    const Float4 four = load_4(words.logits + segment * kSegmentWords + lane_word(t, i + j));
    GPU_UNROLL
    for (u32 k = 0; k < 4; ++k) loaded.logit[j + k] = four.value[k];
  }
  return loaded;
}

// ---- reaches

// Distances below kSampleReach in buckets, for masses: eight for each power of two.
struct MassBuckets {
  static constexpr GPU_CONST u32 kCount = 256;
};
GPU_FN u32 reach_bucket(MassBuckets, float away) { return static_cast<u32>(away * 8.0f); }
/// No word of the bucket is further.
GPU_FN float end_of_bucket(MassBuckets, u32 bucket) {
  return static_cast<float>(bucket + 1) / 8.0f;
}
// The same for numbers of words: below one power of two 32 buckets for each octave, so that words
// are told apart however close they are to the likeliest.
struct NumberBuckets {
  static constexpr GPU_CONST u32 kCount = 512;
  static constexpr GPU_CONST u32 kNear = 256;
  static constexpr GPU_CONST u32 kShift = 18;  // leaves five bits of a float's fraction
  static constexpr GPU_CONST u32 kFirst = (127u - 8) << (23 - kShift);
};
GPU_FN u32 reach_bucket(NumberBuckets, float away) {
  if (away >= 1.0f) return NumberBuckets::kNear + static_cast<u32>((away - 1.0f) * 8.0f);
  const u32 bucket = as_u32(away) >> NumberBuckets::kShift;
  return bucket > NumberBuckets::kFirst ? bucket - NumberBuckets::kFirst : 0;
}
GPU_FN float end_of_bucket(NumberBuckets, u32 bucket) {
  if (bucket < NumberBuckets::kNear) {
    return as_f32((NumberBuckets::kFirst + bucket + 1) << NumberBuckets::kShift);
  }
  return 1.0f + static_cast<float>(bucket - NumberBuckets::kNear + 1) / 8.0f;
}
GPU_FN u32 counted(MassBuckets, float away) {
  return static_cast<u32>(relative_mass(away) * 262144.0f);
}
GPU_FN u32 counted(NumberBuckets, float) { return 1; }

/// How far words may be so that the largest words of groups, which are the fewest that there can
/// be, come to `needed`: their number or, in 2^-18 of the likeliest word, their mass. Infinitely
/// when those within kSampleReach do not.
template <class Buckets>
GPU_FN float reach_of_groups(Thread t, SampleWords words, Buckets buckets, u32 needed,
                             SampleScratch s) {
  constexpr u32 kEach = Buckets::kCount / kWarpSize;
  const u32 num_threads = t.num_warps * kWarpSize;
  block_sync(t);
  for (u32 b = t.index; b < Buckets::kCount; b += num_threads) s.counts[b] = 0;
  block_sync(t);
  for (u32 i = t.index; i < words.num_segments * kSegmentGroups; i += num_threads) {
    const float away = distance(words, words.group_largest[i]);
    if (!(away < kSampleReach)) continue;
    atomic_add_u32(s.counts + reach_bucket(buckets, away), counted(buckets, away));
  }
  block_sync(t);
  u32 own = 0;  // each lane begins elsewhere, so that they do not wait for the same bank
  GPU_UNROLL
  for (u32 j = 0; j < kEach; ++j) own += s.counts[t.lane * kEach + (j + t.lane) % kEach];
  const u32 before = sum_before(t, own);
  const u32 lane = first_lane(t, before + own >= needed);
  if (lane == kWarpSize) return as_f32(0x7f800000u);
  const u32 inside = t.lane < kEach ? s.counts[lane * kEach + t.lane] : 0;
  const u32 up_to = shuffle(t, before, lane) + sum_before(t, inside) + inside;
  const u32 bucket = lane * kEach + first_lane(t, up_to >= needed);
  return end_of_bucket(buckets, bucket);
}

/// How far the words may be that top-p keeps: what lies further, if it were the whole vocabulary,
/// is half of what top-p drops. Mostly a few words are all that it keeps, each the largest of its
/// group. `total` is relative to the likeliest word.
GPU_FN float reach_of_top_p(Thread t, SampleWords words, float top_p, float total,
                            SampleScratch s) {
  const float share = gpu_max(top_p, 0.0f);
  const float dropped = (1.0f - share) * total;
  const float reach = 1.0f + 1.44269504f * gpu_log(static_cast<float>(words.vocab) / dropped);
  const float most = gpu_min(kSampleReach, gpu_max(reach, 0.03125f));
  const float needed = share * total * 262144.0f * 1.0001f + 1.0f;  // whatever was rounded
  if (needed > 4294967040.0f) return most;
  return gpu_min(most, reach_of_groups(t, words, MassBuckets(), static_cast<u32>(needed), s));
}
/// How far the words may be that survive; `total` as above, not used with top-k.
GPU_FN float reach_of_cut(Thread t, SampleWords words, SampleMode mode, float total,
                          SampleScratch s) {
  if (mode.top_k > 0) {
    return gpu_min(reach_of_groups(t, words, NumberBuckets(), mode.top_k, s), kSampleReach);
  }
  float reach = kSampleReach;
  if (mode.top_p < 1.0f) reach = reach_of_top_p(t, words, mode.top_p, total, s);
  if (mode.min_p > 0) reach = gpu_min(reach, 0.03125f - 1.44269504f * gpu_log(mode.min_p));
  return reach;
}

// ---- buckets of words by their distance from the likeliest

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
// Buckets are told apart without turning numbers into integers, of which a GPU does few at a time:
// this far up, a float's last bit counts one.
constexpr GPU_CONST float kMarkOfFirst = 8388608.0f;
constexpr GPU_CONST u32 kMarkBits = 0x7fffffu;
/// kMarkOfFirst and the number of the bucket, before the last bucket takes in what lies beyond.
GPU_FN float mark_of(SampleRuler ruler, float distance) {
  return gpu_fma(distance, ruler.per_unit, kMarkOfFirst);
}
GPU_FN u32 bucket_of(SampleRuler ruler, float distance) {
  const u32 bucket = as_u32(mark_of(ruler, distance)) & kMarkBits;
  return bucket < kSampleBuckets ? bucket : kSampleBuckets - 1;
}

/// A bucket, and the words in all buckets before it.
struct SampleBucket {
  u32 bucket;  // kSampleBuckets: there is none
  u64 count_before, mass_before;
  u64 mass;  // of the words in all buckets together
};

/// What of words goes into buckets.
enum class Fills { kNothing, kMasses, kMassesAndCounts };

// Words in the buckets, but for those that are further than the ruler reaches. All sums of masses
// are under way before the first is looked at.
template <u32 kCount>
GPU_FN void add_to_buckets(SampleWords words, SampleRuler ruler, Fills fills,
                           const float (&logit)[kCount], SampleScratch s) {
  u32 buckets[kCount], masses[kCount], before[kCount];
  GPU_UNROLL
  for (u32 j = 0; j < kCount; ++j) {
    const float away = distance(words, logit[j]);
    const bool is_near = away <= ruler.reach;
    buckets[j] = bucket_of(ruler, away);
    masses[j] = is_near ? whole_mass(relative_mass(away)) : 0;
    before[j] = 0;
    if (is_near) before[j] = atomic_add_u32(s.low + buckets[j], masses[j]);
    if (is_near && fills == Fills::kMassesAndCounts) atomic_add_u32(s.counts + buckets[j], 1);
  }
  GPU_UNROLL
  for (u32 j = 0; j < kCount; ++j) {
    if (before[j] + masses[j] < before[j]) atomic_add_u32(s.high + buckets[j], 1);
  }
}

// Puts a warp's words that are within reach into the list. How many of the block's were there
// before, of which the list has no more than fit.
GPU_FN u32 add_to_list(Thread t, SampleWords words, SampleRuler ruler, const NearWords& loaded,
                       SampleScratch s) {
  // A warp asks for the places of all its words at once: it waits for an atomic operation's answer
  // as long as for memory.
  const u32 lanes_before = (1u << t.lane) - 1;
  u32 places[kNearGroups], num_found = 0;
  GPU_UNROLL
  for (u32 j = 0; j < kNearGroups; ++j) {
    const bool is_found =
        distance(words, loaded.logit[j]) <= ruler.reach && is_finite(loaded.logit[j]);
    const u32 found = lanes_where(t, is_found);
    places[j] = is_found ? num_found + count_bits(found & lanes_before) : kNowhere;
    num_found += count_bits(found);
  }
  u32 first = 0;
  if (t.lane == 0 && num_found > 0) first = atomic_add_u32(s.counter, num_found);
  first = shuffle(t, first, 0);
  GPU_UNROLL
  for (u32 j = 0; j < kNearGroups; ++j) {
    if (places[j] == kNowhere) continue;
    const u32 place = first + places[j];
    if (place < kSampleList) s.list[place] = ranked(loaded.logit[j], loaded.id[j]);
  }
  return first;
}

/// The possible words within reach: their ranks in the list, and in the buckets what `fills` says,
/// for which the reach has to be finite. The number of words, or some other that is greater than
/// kSampleList when they do not fit the list.
GPU_FN u32 gather(Thread t, SampleWords words, SampleRuler ruler, Fills fills, SampleScratch s) {
  block_sync(t);
  if (t.index == 0) *s.counter = 0;
  const u32 to_clear = fills == Fills::kNothing ? 0 : 3 * kSampleBuckets;
  for (u32 b = t.index; b < to_clear; b += t.num_warps * kWarpSize) s.counts[b] = 0;
  block_sync(t);
  bool is_full = false;  // the list, as this warp knows: it need not be told of any more words
  for (u32 segment = t.warp; segment < words.num_segments; segment += t.num_warps) {
    if (is_full && fills == Fills::kNothing) break;
    u32 near = near_groups(t, words, segment, ruler.reach);
    if (is_full && is_dense(words, segment, near)) {
      for (u32 i = 0; i < kLaneWords; i += kDenseWords) {
        const DenseWords loaded = load_dense(t, words, segment, i);
        add_to_buckets(words, ruler, fills, loaded.logit, s);
      }
      continue;
    }
    for (; near != 0; near = without_loaded(near)) {
      const NearWords loaded = load_near(t, words, segment, near);
      if (!is_full) is_full = add_to_list(t, words, ruler, loaded, s) > kSampleList;
      if (fills != Fills::kNothing) add_to_buckets(words, ruler, fills, loaded.logit, s);
    }
  }
  block_sync(t);
  return *s.counter;
}

GPU_FN u64 mass_of_bucket(SampleScratch s, u32 bucket) {
  return (static_cast<u64>(s.high[bucket]) << 32) | s.low[bucket];
}
// The bucket with the word at which what lies before, words or mass, passes `limit`. Warps sum 32
// buckets at a time, and then every warp finds it by itself.
GPU_FN SampleBucket find_bucket(Thread t, bool by_mass, u64 limit, SampleScratch s) {
  static_assert(kSampleBuckets == kWarpSize * kWarpSize, "a lane for each sum");
  for (u32 sum = t.warp; sum < kWarpSize; sum += t.num_warps) {
    const u32 b = sum * kWarpSize + t.lane;
    const u64 count = warp_sum(t, static_cast<u64>(s.counts[b]));
    const u64 mass = warp_sum(t, mass_of_bucket(s, b));
    if (t.lane == 0) {
      s.places[sum] = count;
      s.sums[sum] = mass;
    }
  }
  block_sync(t);
  const u64 count = s.places[t.lane], mass = s.sums[t.lane];
  const u64 count_before = sum_before(t, count), mass_before = sum_before(t, mass);
  const u64 before = by_mass ? mass_before : count_before;
  const u32 sum = first_lane(t, before <= limit && limit - before < (by_mass ? mass : count));
  SampleBucket found;
  found.bucket = kSampleBuckets;
  found.count_before = found.mass_before = 0;
  found.mass = shuffle(t, mass_before + mass, kWarpSize - 1);
  if (sum < kWarpSize) {
    const u32 b = sum * kWarpSize + t.lane;
    const u64 c = s.counts[b], m = mass_of_bucket(s, b);
    const u64 c_before = shuffle(t, count_before, sum) + sum_before(t, c);
    const u64 m_before = shuffle(t, mass_before, sum) + sum_before(t, m);
    const u64 at = by_mass ? m_before : c_before;
    const u32 lane = first_lane(t, at <= limit && limit - at < (by_mass ? m : c));
    found.bucket = sum * kWarpSize + lane;
    found.count_before = shuffle(t, c_before, lane);
    found.mass_before = shuffle(t, m_before, lane);
  }
  block_sync(t);
  return found;
}

// One of a bucket's words, of which no more than fit are kept.
GPU_FN void add_to_bucket_list(u64 rank, SampleScratch s) {
  const u32 place = atomic_add_u32(s.counter, 1);
  if (place < kSampleBucket) s.of_bucket[place] = rank;
}

/// The ranks of one bucket's words, from the list. The number of them, of which no more than
/// kSampleBucket are kept.
GPU_FN u32 collect_bucket(Thread t, SampleWords words, SampleRuler ruler, u32 num_listed,
                          u32 bucket, SampleScratch s) {
  block_sync(t);
  if (t.index == 0) *s.counter = 0;
  block_sync(t);
  for (u32 i = t.index; i < num_listed; i += t.num_warps * kWarpSize) {
    if (bucket_of(ruler, distance(words, number_of(s.list[i]))) != bucket) continue;
    add_to_bucket_list(s.list[i], s);
  }
  block_sync(t);
  return *s.counter;
}

/// What a word counts in the draw, if it stays.
GPU_FN u32 drawn_mass(float away, float min_p) {
  const float mass = relative_mass(away);
  return mass < min_p ? 0 : whole_mass(mass);
}

/// Sums what the words near enough count in the draw, segment by segment: mass_of(look, ...) of
/// each, which may do more with it. Words that are further may be looked at as well.
template <class Look>
GPU_FN void sum_segments(Thread t, SampleWords words, float reach, Look look, SampleScratch s) {
  for (u32 segment = t.warp; segment < words.num_segments; segment += t.num_warps) {
    u64 own = 0;
    u32 near = near_groups(t, words, segment, reach);
    const bool looks_at_all = is_dense(words, segment, near);
    for (u32 i = 0; looks_at_all && i < kLaneWords; i += kDenseWords) {
      const DenseWords loaded = load_dense(t, words, segment, i);
      GPU_UNROLL
      for (u32 j = 0; j < kDenseWords; ++j) {
        const u32 id = segment * kSegmentWords + lane_word(t, i + j);
        own += mass_of(look, words, loaded.logit[j], id, s);
      }
    }
    for (; !looks_at_all && near != 0; near = without_loaded(near)) {
      const NearWords loaded = load_near(t, words, segment, near);
      GPU_UNROLL
      for (u32 j = 0; j < kNearGroups; ++j) {
        own += mass_of(look, words, loaded.logit[j], loaded.id[j], s);
      }
    }
    own = warp_sum(t, own);
    if (t.lane == 0) {
      s.segment_low[segment] = static_cast<u32>(own);
      s.segment_high[segment] = static_cast<u32>(own >> 32);
    }
  }
}

/// Words in front of a bucket count, those of the bucket itself are listed.
struct SplitAtBucket {
  SampleRuler ruler;
  float begin, end;  // of the bucket, as mark_of() has it
  float min_p;
};
GPU_FN u32 mass_of(SplitAtBucket split, SampleWords words, float logit, u32 id, SampleScratch s) {
  const float away = distance(words, logit), mark = mark_of(split.ruler, away);
  const u32 mass = mark < split.begin ? drawn_mass(away, split.min_p) : 0;
  if (mark >= split.begin && mark < split.end && away <= split.ruler.reach) {
    add_to_bucket_list(ranked(logit, id), s);
  }
  return mass;
}

/// As collect_bucket(), from all words near enough, in the one look at them that there has to be:
/// what the words in front of the bucket count in the draw is summed.
GPU_FN u32 split_at_bucket(Thread t, SampleWords words, SampleRuler ruler, u32 bucket, float min_p,
                           SampleScratch s) {
  block_sync(t);
  if (t.index == 0) *s.counter = 0;
  block_sync(t);
  SplitAtBucket split;
  split.ruler = ruler;
  split.begin = kMarkOfFirst + static_cast<float>(bucket);
  split.end = bucket + 1 < kSampleBuckets ? split.begin + 1.0f : as_f32(0x7f800000u);
  split.min_p = min_p;
  sum_segments(t, words, ruler.reach, split, s);
  block_sync(t);
  return *s.counter;
}

// ---- single words

GPU_FN u32 mass_of_rank(SampleWords words, u64 rank) {
  return whole_mass(relative_mass(distance(words, number_of(rank))));
}

/// Some ranks in shared memory, or every word within `reach` where count is 0.
struct SampleRanks {
  const GPU_SHARED u64* list;
  u32 count;
  float reach;
};

/// Words, or their mass, from `rank` up.
GPU_FN u64 sum_from(Thread t, SampleWords words, SampleRanks ranks, bool by_mass, u64 rank,
                    SampleScratch s) {
  u64 sum = 0;
  for (u32 i = t.index; i < ranks.count; i += t.num_warps * kWarpSize) {
    if (ranks.list[i] >= rank) sum += by_mass ? mass_of_rank(words, ranks.list[i]) : 1;
  }
  for (u32 segment = t.warp; ranks.count == 0 && segment < words.num_segments;
       segment += t.num_warps) {
    u32 near = near_groups(t, words, segment, ranks.reach);
    for (; near != 0; near = without_loaded(near)) {
      const NearWords loaded = load_near(t, words, segment, near);
      GPU_UNROLL
      for (u32 j = 0; j < kNearGroups; ++j) {
        if (is_nan(loaded.logit[j]) || ranked(loaded.logit[j], loaded.id[j]) < rank) continue;
        sum += by_mass ? whole_mass(relative_mass(distance(words, loaded.logit[j]))) : 1;
      }
    }
  }
  return block_sum(t, sum, s.sums);
}

// Words in the order of their ranks, likeliest first, are cut where what lies before passes
// `limit`: the number of words, or their mass. `before` lies before all that are looked at. The
// rank of the last word that stays is found bit by bit.
GPU_FN u64 search_boundary(Thread t, SampleWords words, SampleRanks ranks, bool by_mass, u64 before,
                           u64 limit, SampleScratch s) {
  u32 id_bits = 1;
  while (id_bits < 32 && (words.vocab >> id_bits) > 0) ++id_bits;
  u64 boundary = 0;
  for (u32 step = 0; step < 32 + id_bits; ++step) {
    // All ids leave the same upper bits of the lower half: those need no search.
    if (step == 32) boundary |= (0xffffffffu >> id_bits) << id_bits;
    const u32 bit = step < 32 ? 63 - step : id_bits - 1 - (step - 32);
    const u64 above = (boundary | ((static_cast<u64>(1) << bit) - 1)) + 1;
    const u64 passed = sum_from(t, words, ranks, by_mass, above, s);
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

// search_boundary for at most kSampleShort ranks: each is compared with all others.
GPU_FN u64 compare_boundary(Thread t, SampleWords words, SampleRanks ranks, bool by_mass,
                            u64 before, u64 limit, SampleScratch s) {
  const u32 num_threads = t.num_warps * kWarpSize;
  block_sync(t);
  for (u32 i = t.index; i < ranks.count; i += num_threads) {
    s.masses[i] = by_mass ? mass_of_rank(words, ranks.list[i]) : 1;
  }
  block_sync(t);
  u64 lowest = 0;  // its complement: the lower the rank, the larger
  for (u32 first = 0; first < ranks.count; first += num_threads / kSampleShare) {
    const u32 i = first + t.index / kSampleShare;
    const u64 rank = i < ranks.count ? ranks.list[i] : ~static_cast<u64>(0);
    u64 passed = 0;
    for (u32 j = t.index % kSampleShare; j < ranks.count; j += kSampleShare) {
      passed += ranks.list[j] > rank ? s.masses[j] : 0;
    }
    passed = before + sum_shares(t, passed);
    if (passed <= limit && ~rank > lowest) lowest = ~rank;
  }
  return ~block_max(t, lowest, s.sums);
}

// The boundary of top-k and then top-p for at most kSampleShort ranks at the beginning of s.list,
// which hold the top_k likeliest words: both number and mass of what lies before a word, in one
// integer, from one comparison with all others.
GPU_FN u64 compare_both(Thread t, SampleWords words, u32 count, u32 top_k, u64 share,
                        SampleScratch s) {
  constexpr u32 kMassBits = 40;  // 256 words of 2^31
  constexpr u64 kOneWord = static_cast<u64>(1) << kMassBits;
  const u32 num_threads = t.num_warps * kWarpSize;
  GPU_SHARED u64* passed_before = s.list + kSampleShort;
  block_sync(t);
  for (u32 i = t.index; i < count; i += num_threads) {
    s.of_bucket[i] = kOneWord | mass_of_rank(words, s.list[i]);
  }
  block_sync(t);
  u64 kept = 0;
  for (u32 first = 0; first < count; first += num_threads / kSampleShare) {
    const u32 i = first + t.index / kSampleShare;
    const u64 rank = i < count ? s.list[i] : ~static_cast<u64>(0);
    u64 passed = 0;
    for (u32 j = t.index % kSampleShare; j < count; j += kSampleShare) {
      passed += s.list[j] > rank ? s.of_bucket[j] : 0;
    }
    passed = sum_shares(t, passed);
    if (i >= count || t.index % kSampleShare != 0) continue;
    passed_before[i] = passed;
    if ((passed >> kMassBits) < top_k) kept += s.of_bucket[i] - kOneWord;
  }
  const u64 limit = mul_hi(share, block_sum(t, kept, s.sums));
  u64 lowest = 0;  // its complement
  for (u32 i = t.index; i < count; i += num_threads) {
    const u64 passed = passed_before[i];
    const bool stays = (passed >> kMassBits) < top_k && (passed & (kOneWord - 1)) <= limit;
    if (stays && ~s.list[i] > lowest) lowest = ~s.list[i];
  }
  return ~block_max(t, lowest, s.sums);
}

/// What the cuts leave: among these words those from the rank `boundary` up.
struct SampleCut {
  SampleRanks ranks;
  u64 boundary;
  bool is_summed;  // all words before `ranks` stay as well: each segment's sum has them
};

/// `total` is of e^((logit - largest) / temperature); it is not used with top-k. The words that
/// min-p drops may still be there.
GPU_FN SampleCut cut_words(Thread t, SampleWords words, SampleMode mode, float total,
                           SampleScratch s) {
  const u64 share =
      mode.top_p < 1.0f ? static_cast<u64>(gpu_max(mode.top_p, 0.0f) * 4294967296.0f) << 32 : 0;
  const SampleRuler ruler = ruler_to(reach_of_cut(t, words, mode, total, s));
  // Few words need no buckets, as each is compared with all others; min-p alone searches nothing.
  const bool is_searched = mode.top_k > 0 || mode.top_p < 1.0f;
  const bool may_be_few = mode.top_k > 0 && mode.top_k <= kSampleShort / 4;
  u32 num_words = 0;
  if (may_be_few || !is_searched) num_words = gather(t, words, ruler, Fills::kNothing, s);
  if (is_searched && (!may_be_few || num_words > kSampleShort)) {
    const Fills fills = mode.top_k > 0 ? Fills::kMassesAndCounts : Fills::kMasses;
    num_words = gather(t, words, ruler, fills, s);
  }
  SampleCut cut;
  cut.ranks.list = s.list;
  cut.ranks.count = num_words <= kSampleList ? num_words : 0;
  cut.ranks.reach = ruler.reach;
  cut.boundary = 0;
  cut.is_summed = false;
  if (mode.top_k > 0 && mode.top_p < 1.0f && num_words <= kSampleShort) {
    cut.boundary = compare_both(t, words, num_words, mode.top_k, share, s);
    return cut;
  }
  u64 kept = static_cast<u64>(total * 2147483648.0f);
  for (u32 by_mass = mode.top_k > 0 ? 0 : 1; by_mass < (mode.top_p < 1.0f ? 2u : 1u); ++by_mass) {
    const u64 limit = by_mass != 0 ? mul_hi(share, kept) : mode.top_k - 1;
    SampleRanks ranks = cut.ranks;
    u64 before = 0, mass_before = 0;
    if (num_words > kSampleShort) {
      const SampleBucket found = find_bucket(t, by_mass != 0, limit, s);
      if (found.bucket == kSampleBuckets) {  // what is kept reaches further than counts
        kept = found.mass;
        continue;
      }
      const bool has_list = ranks.count > 0;
      const u32 num_in_bucket = has_list
                                    ? collect_bucket(t, words, ruler, ranks.count, found.bucket, s)
                                    : split_at_bucket(t, words, ruler, found.bucket, mode.min_p, s);
      if (num_in_bucket <= kSampleBucket) {
        const bool is_last = by_mass != 0 || !(mode.top_p < 1.0f);
        cut.is_summed = is_last && !has_list;
        ranks.list = s.of_bucket;
        ranks.count = num_in_bucket;
        if (cut.is_summed) cut.ranks = ranks;
        before = by_mass != 0 ? found.mass_before : found.count_before;
        mass_before = found.mass_before;
      }
    }
    cut.boundary = ranks.count > 0 && ranks.count <= kSampleShort
                       ? compare_boundary(t, words, ranks, by_mass != 0, before, limit, s)
                       : search_boundary(t, words, ranks, by_mass != 0, before, limit, s);
    if (by_mass == 0) kept = mass_before + sum_from(t, words, ranks, true, cut.boundary, s);
  }
  return cut;
}

}  // namespace kernels
}  // namespace fovea
