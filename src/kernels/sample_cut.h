#pragma once

// Where top-k, top-p and min-p cut a row, and its likeliest words.
//
// A cut is found as a radix sort would find it, digit by digit: words are counted, or their mass is
// summed, by the leading digit of how far they are from the likeliest; the digit at which the limit
// is passed is where the cut lies, and its words are told apart by the next digit. As soon as few
// words are left, each is compared with all others.

#include "sample_words.h"

namespace fovea {
namespace kernels {

constexpr GPU_CONST u32 kSampleList = 256;     // so few words that each is compared with all others
constexpr GPU_CONST u32 kSampleBuckets = 512;  // one for each digit
constexpr GPU_CONST u32 kSampleParts = kSampleBuckets / kWarpSize;
static_assert(kSampleParts <= kWarpSize, "a lane for each part");
constexpr GPU_CONST float kSampleReach = 32.0f;  // powers of two: words further off count nothing

// ---- shared memory

/// Where a row's words lie, and how sums of them are kept.
///
/// In shared memory, for devices with much of it: lanes have copies of the buckets, so that they
/// seldom add to the same, and masses are added in halves of 16 bits (no copy gets 65,536 words).
struct WordsInShared {
  using Floats = GPU_SHARED float*;
  static constexpr GPU_CONST u32 kSharedBytes = 4 * kSegmentWords;  // for each segment
  static constexpr GPU_CONST u32 kCopies = 16;
  static constexpr GPU_CONST u32 kLowBits = 16;
};
/// In memory of the row's own: little shared memory is enough for rows of any size.
struct WordsInMemory {
  using Floats = GPU_GLOBAL float*;
  static constexpr GPU_CONST u32 kSharedBytes = 0;
  static constexpr GPU_CONST u32 kCopies = 1;
  static constexpr GPU_CONST u32 kLowBits = 32;
};

/// A block's shared memory, but for words. What blocks tell one another has a part for each.
struct SampleScratch {
  u32 num_segments;            // of the row
  u32 num_blocks;              // of the cluster
  GPU_SHARED u32* low;         // [kSampleBuckets, copies] numbers of words, or lower bits of masses
  GPU_SHARED u32* high;        // [kSampleBuckets, copies] the upper bits
  GPU_SHARED u32* of_largest;  // [kSampleBuckets] the same of lanes' largest words
  GPU_SHARED u64* sums;        // [num_blocks, kSampleBuckets] buckets, without copies
  GPU_SHARED u64* totals;      // [kSampleBuckets] of the cluster: the sum of 32 up to each
  GPU_SHARED u64* list;        // [2, num_blocks, kSampleList] ranks, in turns
  GPU_SHARED u64* listed;      // [kSampleList] the same side by side
  GPU_SHARED u64* of_warps;    // [kWarpSize]
  GPU_SHARED u64* masses;      // [num_segments] what they count in the draw
  GPU_SHARED u64* found;       // [3] of a bucket
  GPU_SHARED u64* random;
  SampleKnown known;
  GPU_SHARED u32* listed_masses;  // [kSampleList]
  GPU_SHARED u32* list_counts;    // [2, num_blocks]
  GPU_SHARED u32* turn;           // of lists
  GPU_SHARED u32* counter;
};
/// For the host: what a block asks for.
template <class Place>
constexpr u32 sample_shared_bytes(u32 num_segments, u32 num_blocks) {
  return Place::kSharedBytes * ((num_segments + num_blocks - 1) / num_blocks) +
         8 * ((Place::kCopies + num_blocks + 1) * kSampleBuckets +
              (2 * num_blocks + 1) * kSampleList + kWarpSize + 2 * num_segments + 5) +
         4 * ((3 + 2 * kWarpSize) * num_segments + kSampleBuckets + kSampleList + 2 * num_blocks +
              5);
}
GPU_FN SampleScratch sample_scratch(GPU_SHARED char* memory, u32 num_segments, u32 num_blocks,
                                    u32 copies) {
  SampleScratch s;
  s.num_segments = num_segments;
  s.num_blocks = num_blocks;
  s.low = reinterpret_cast<GPU_SHARED u32*>(memory);
  s.high = s.low + kSampleBuckets * copies;
  s.of_largest = s.high + kSampleBuckets * copies;
  s.sums = reinterpret_cast<GPU_SHARED u64*>(s.of_largest + kSampleBuckets);
  s.totals = s.sums + num_blocks * kSampleBuckets;
  s.list = s.totals + kSampleBuckets;
  s.listed = s.list + 2 * num_blocks * kSampleList;
  s.of_warps = s.listed + kSampleList;
  s.masses = s.of_warps + kWarpSize;
  s.found = s.masses + num_segments;
  s.random = s.found + 3;
  s.known.likeliest_of_row = s.random + 1;
  s.known.likeliest = s.known.likeliest_of_row + 1;
  s.known.total = reinterpret_cast<GPU_SHARED u32*>(s.known.likeliest + num_segments);
  s.known.drawn = s.known.total + num_segments;
  s.known.smallest = s.known.drawn + num_segments;
  s.known.of_lanes = s.known.smallest + num_segments;
  s.known.of_row = s.known.of_lanes + 2 * num_segments * kWarpSize;
  s.listed_masses = s.known.of_row + 3;
  s.list_counts = s.listed_masses + kSampleList;
  s.turn = s.list_counts + 2 * num_blocks;
  s.counter = s.turn + 1;
  return s;
}
/// Empties buckets; they are so from the next block_sync() on.
GPU_FN void clear_buckets(Thread t, GPU_SHARED u32* buckets, u32 count) {
  Float4 zeros;
  zeros.value[0] = zeros.value[1] = zeros.value[2] = zeros.value[3] = 0;
  for (u32 i = 4 * t.index; i < count; i += 4 * t.num_warps * kWarpSize) {
    store_4(reinterpret_cast<GPU_SHARED float*>(buckets) + i, zeros);
  }
}

// ---- the order of words
//
// Words come in the order of their logits, the largest first, equal ones in that of ids. Most are
// told apart by their marks: their distances from the likeliest in 2^-23 of a reach.

/// The last word that stays.
struct SampleFloor {
  float logit;
  u32 id;
};
GPU_FN SampleFloor no_floor() {
  SampleFloor floor;
  floor.logit = as_f32(0xff800000u);
  floor.id = 0;
  return floor;
}
GPU_FN bool stays(SampleFloor floor, float logit, u32 id) {
  return logit > floor.logit || (logit == floor.logit && id <= floor.id);
}

constexpr GPU_CONST u32 kMarkBits = 23;
/// The words that a search looks at: those within a reach.
struct SampleSearch {
  SampleMeasure measure;
  float per_reach;  // of a logit
};
/// reach: powers of two.
GPU_FN SampleSearch search_within(SampleMeasure measure, float reach) {
  SampleSearch search;
  search.measure = measure;
  // A little less, so that what lies at the end is within; finite, so that no distance is none.
  const float per_reach = 0.999999f * measure.scale / gpu_min(gpu_max(reach, 1e-30f), 1e30f);
  search.per_reach = gpu_min(per_reach, 1e37f);
  return search;
}
/// Monotone in the distance; 2^kMarkBits or more of words out of reach.
GPU_FN u32 mark_of(SampleSearch search, float logit) {
  const float away = search.measure.largest - logit;
  return as_u32(gpu_fma(away, search.per_reach, 1.0f)) - 0x3f800000u;
}

// ---- digits
//
// Nine bits each of a word's mark, then the five that are left; then eight times eight of its rank,
// should that many words have the same mark.

constexpr GPU_CONST u32 kMarkDigits = 3;

/// The bits of a mark behind its first `digits`.
GPU_FN u32 mark_shift(u32 digits) { return digits == 1 ? 14 : digits == 2 ? 5 : 0; }
/// The same of a rank's complement, behind the marks' digits and others of its own.
GPU_FN u32 order_shift(u32 digits) { return 8 * (kMarkDigits + 8 - digits); }

/// No digit is known: all words that are looked at.
struct AllWords {};
/// Words whose first digits are known, one at least.
struct WordsWith {
  u32 digits;
  u32 mark;
  u64 order;
};
GPU_FN WordsWith with_digit(WordsWith known, u32 digit) {
  const u32 bits = known.digits == 2 ? 5 : 9;
  if (known.digits < kMarkDigits) {
    known.mark = (known.mark << bits) | digit;
  } else {
    known.order = (known.order << 8) | digit;
  }
  ++known.digits;
  return known;
}
/// Words in front of a mark.
struct NearWords {
  u32 end;
};
/// Words down to a floor.
struct WordsAbove {
  SampleFloor floor;
};

/// Whether a word may be one of them, from its mark alone.
GPU_FN bool may_be_in(AllWords, u32 mark) { return mark < (1u << kMarkBits); }
GPU_FN bool may_be_in(WordsWith known, u32 mark) {
  const u32 shift = mark_shift(known.digits);
  return mark - (known.mark << shift) < (1u << shift);
}
GPU_FN bool may_be_in(NearWords near, u32 mark) { return mark < near.end; }
GPU_FN bool may_be_in(WordsAbove, u32 mark) { return mark < (1u << kMarkBits); }
/// Whether a lane may have any, from the mark of its largest word.
GPU_FN bool reaches(WordsWith known, u32 mark) {
  return mark < (known.mark + 1) << mark_shift(known.digits);
}
GPU_FN bool reaches(NearWords near, u32 mark) { return mark < near.end; }
GPU_FN bool reaches(WordsAbove, u32 mark) { return mark < (1u << kMarkBits); }
/// Whether one that may be is.
GPU_FN bool is_in(WordsWith known, float logit, u32 id) {
  return known.digits <= kMarkDigits ||
         ~ranked(logit, id) >> order_shift(known.digits) == known.order;
}
GPU_FN bool is_in(NearWords, float, u32) { return true; }
GPU_FN bool is_in(WordsAbove above, float logit, u32 id) { return stays(above.floor, logit, id); }
/// The first digit that is not known.
GPU_FN u32 next_digit(AllWords, u32 mark, float, u32) { return mark >> mark_shift(1); }
GPU_FN u32 next_digit(WordsWith known, u32 mark, float logit, u32 id) {
  if (known.digits == 1) return (mark >> mark_shift(2)) & 0x1ff;
  if (known.digits == 2) return mark & 0x1f;
  return static_cast<u32>(~ranked(logit, id) >> order_shift(known.digits + 1)) & 0xff;
}

/// A bit for each of a lane's words of a segment that may be among them.
template <class Range, class Floats>
GPU_FN u32 words_in(Thread t, SampleWords<Floats> words, u32 segment, SampleSearch search,
                    Range range) {
  u32 found = 0;
  GPU_UNROLL
  for (u32 step = 0; step < kSegmentSteps; ++step) {
    const Float4 four = load_words(t, words, segment, step);
    GPU_UNROLL
    for (u32 j = 0; j < 4; ++j) {
      found |= may_be_in(range, mark_of(search, four.value[j])) ? 1u << (4 * step + j) : 0;
    }
  }
  return found;
}

// ---- buckets

/// Adds to a bucket.
GPU_FN void add_mass(WordsInShared, GPU_SHARED u32* low, GPU_SHARED u32* high, u32 mass) {
  atomic_add_u32(low, mass & 0xffff);
  atomic_add_u32(high, mass >> 16);
}
GPU_FN void add_mass(WordsInMemory, GPU_SHARED u32* low, GPU_SHARED u32* high, u32 mass) {
  const u32 before = atomic_add_u32(low, mass);
  if (before + mass < before) atomic_add_u32(high, 1);
}

/// A segment's words to the buckets of their next digits.
template <class Place>
GPU_FN void add_segment(Thread t, SampleWords<typename Place::Floats> words, u32 segment,
                        SampleSearch search, AllWords all, bool by_mass, SampleScratch s) {
  for (u32 step = 0; step < kSegmentSteps; ++step) {
    const Float4 four = load_words(t, words, segment, step);
    GPU_UNROLL
    for (u32 j = 0; j < 4; ++j) {
      const float logit = four.value[j];
      const u32 mark = mark_of(search, logit);
      const u32 at = next_digit(all, mark, logit, 0) * Place::kCopies + t.lane % Place::kCopies;
      if (!may_be_in(all, mark)) continue;
      if (by_mass) {
        const u32 mass = whole_mass(relative_mass(distance(search.measure, logit)));
        add_mass(Place(), s.low + at, s.high + at, mass);
      } else {
        atomic_add_u32(s.low + at, 1);
      }
    }
  }
}
template <class Place>
GPU_FN void add_segment(Thread t, SampleWords<typename Place::Floats> words, u32 segment,
                        SampleSearch search, WordsWith known, bool by_mass, SampleScratch s) {
  for (u32 found = words_in(t, words, segment, search, known); found != 0; found &= found - 1) {
    const u32 word = word_at(t, lowest_bit(found)), id = segment * kSegmentWords + word;
    const float logit = words_of_segment(words, segment)[word];
    if (!is_in(known, logit, id)) continue;
    const u32 digit = next_digit(known, mark_of(search, logit), logit, id);
    const u32 at = digit * Place::kCopies + t.lane % Place::kCopies;
    const float away = distance(search.measure, logit);
    add_mass(Place(), s.low + at, s.high + at, by_mass ? whole_mass(relative_mass(away)) : 1);
  }
}

/// A part of 32 buckets: their sums up to each to s.totals, and of all of it to s.of_warps.
template <class Sum>
GPU_FN void put_part(Thread t, u32 part, Sum of_bucket, SampleScratch s) {
  const Sum up_to = sum_before(t, of_bucket) + of_bucket;
  s.totals[part * kWarpSize + t.lane] = up_to;
  if (t.lane == kWarpSize - 1) s.of_warps[part] = up_to;
}

/// Sums the words' masses, or counts them, by their next digit, in buckets that were empty and are
/// so again: of the whole cluster, as put_part() puts them.
template <class Place, class Range>
GPU_FN void fill_buckets(Thread t, SampleWords<typename Place::Floats> words, SampleSearch search,
                         Range range, bool by_mass, SampleScratch s) {
  constexpr u32 kCopies = Place::kCopies;
  for (u32 segment = words.first_segment + t.warp; segment < words.end_segment;
       segment += t.num_warps) {
    add_segment<Place>(t, words, segment, search, range, by_mass, s);
  }
  block_sync(t);
  const u32 num_threads = t.num_warps * kWarpSize;
  for (u32 bucket = t.index; bucket < kSampleBuckets; bucket += num_threads) {
    u64 sum = 0;
    GPU_UNROLL
    for (u32 n = 0; n < kCopies; ++n) {  // each thread from another on, because of the banks
      const u32 at = bucket * kCopies + (n + bucket * kCopies / kWarpSize) % kCopies;
      sum += s.low[at] + (static_cast<u64>(s.high[at]) << Place::kLowBits);
    }
    const u32 at = t.block.y * kSampleBuckets + bucket;
    for (u32 peer = 0; peer < s.num_blocks; ++peer) store_to_peer(t, s.sums + at, sum, peer);
  }
  cluster_sync(t);
  clear_buckets(t, s.low, 2 * kSampleBuckets * kCopies);
  for (u32 part = t.warp; part < kSampleParts; part += t.num_warps) {
    u64 total = 0;
    for (u32 peer = 0; peer < s.num_blocks; ++peer) {
      total += s.sums[peer * kSampleBuckets + part * kWarpSize + t.lane];
    }
    put_part(t, part, total, s);
  }
  block_sync(t);
}

/// The same of the two largest words of each lane alone, by the first digit: there are few, and
/// every block knows all of them. Masses count 2^-18 of the likeliest word.
GPU_FN void fill_buckets_with_largest(Thread t, SampleSearch search, bool by_mass,
                                      SampleScratch s) {
  for (u32 i = t.index; i < 2 * s.num_segments * kWarpSize; i += t.num_warps * kWarpSize) {
    const float logit = as_f32(s.known.of_lanes[i]);
    const u32 mark = mark_of(search, logit);
    if (!may_be_in(AllWords(), mark)) continue;
    const float mass = relative_mass(distance(search.measure, logit)) * 262144.0f;
    atomic_add_u32(s.of_largest + next_digit(AllWords(), mark, logit, 0),
                   by_mass ? static_cast<u32>(mass) : 1);
  }
  block_sync(t);
  for (u32 part = t.warp; part < kSampleParts; part += t.num_warps) {
    put_part(t, part, s.of_largest[part * kWarpSize + t.lane], s);
  }
  block_sync(t);
  clear_buckets(t, s.of_largest, kSampleBuckets);
}

/// Where a limit lies among words in their order.
struct SampleBucket {
  u32 bucket;  // kSampleBuckets: there is none
  u64 before;  // what the words in front of the bucket come to
  u64 limit;
};

/// The bucket at which what lies before it passes the limit; where that is a share, it is one of
/// all buckets.
GPU_FN SampleBucket find_bucket(Thread t, bool is_share, u64 limit, SampleScratch s) {
  SampleBucket found;
  if (t.warp == 0) {
    const u64 of_part = t.lane < kSampleParts ? s.of_warps[t.lane] : 0;
    const u64 before_part = sum_before(t, of_part);
    if (is_share) limit = mul_hi(limit, shuffle(t, before_part + of_part, kWarpSize - 1));
    const u32 part = first_lane(t, before_part + of_part > limit);
    found.bucket = kSampleBuckets;
    found.before = 0;
    if (part < kWarpSize) {
      const u64 before = shuffle(t, before_part, part);
      const u64 up_to = before + s.totals[part * kWarpSize + t.lane];
      const u32 lane = first_lane(t, up_to > limit);
      found.bucket = part * kWarpSize + lane;
      found.before = lane == 0 ? before : shuffle(t, up_to, lane == 0 ? 0 : lane - 1);
    }
    if (t.lane == 0) {
      s.found[0] = found.bucket;
      s.found[1] = found.before;
      s.found[2] = limit;
    }
  }
  block_sync(t);
  found.bucket = static_cast<u32>(s.found[0]);
  found.before = s.found[1];
  found.limit = s.found[2];
  return found;
}

// ---- single words

/// Puts the ranks of the words to s.listed, of each block of the cluster, and to s.listed_masses
/// what they count in a cut. Their number; when that is more than kSampleList, they are not there.
template <class Range, class Floats>
GPU_FN u32 list_words(Thread t, SampleWords<Floats> words, SampleSearch search, Range range,
                      bool by_mass, SampleScratch s) {
  if (t.index == 0) {
    *s.counter = 0;
    *s.turn ^= 1;
  }
  block_sync(t);
  // Some may still read the last list while others write this one.
  GPU_SHARED u64* list = s.list + *s.turn * s.num_blocks * kSampleList;
  GPU_SHARED u32* list_counts = s.list_counts + *s.turn * s.num_blocks;
  for (u32 segment = words.first_segment + t.warp; segment < words.end_segment;
       segment += t.num_warps) {
    const float largest = as_f32(s.known.of_lanes[2 * segment * kWarpSize + t.lane]);
    if (lanes_where(t, reaches(range, mark_of(search, largest))) == 0) continue;
    u32 found = words_in(t, words, segment, search, range), left = 0;
    for (; found != 0; found &= found - 1) {
      const u32 word = lowest_bit(found), at = word_at(t, word);
      const float logit = words_of_segment(words, segment)[at];
      if (is_in(range, logit, segment * kSegmentWords + at)) left |= 1u << word;
    }
    if (left == 0) continue;
    for (u32 place = atomic_add_u32(s.counter, count_bits(left)); left != 0; ++place) {
      const u32 at = word_at(t, lowest_bit(left));
      left &= left - 1;
      if (place >= kSampleList) break;
      const u64 rank = ranked(words_of_segment(words, segment)[at], segment * kSegmentWords + at);
      for (u32 peer = 0; peer < s.num_blocks; ++peer) {
        store_to_peer(t, list + t.block.y * kSampleList + place, rank, peer);
      }
    }
  }
  block_sync(t);
  if (t.index < s.num_blocks) {
    store_to_peer(t, list_counts + t.block.y, *s.counter, t.index);
  }
  cluster_sync(t);
  u32 total = 0;
  for (u32 peer = 0; peer < s.num_blocks; ++peer) total += list_counts[peer];
  if (total > kSampleList) return total;
  for (u32 i = t.index; i < total; i += t.num_warps * kWarpSize) {
    u32 place = i, peer = 0;
    for (; place >= list_counts[peer]; ++peer) place -= list_counts[peer];
    const u64 rank = list[peer * kSampleList + place];
    const float away = distance(search.measure, number_of(rank));
    s.listed[i] = rank;
    s.listed_masses[i] = by_mass ? whole_mass(relative_mass(away)) : 1;
  }
  block_sync(t);
  return total;
}

/// Where the limit lies among the `count` words listed, in front of which others come to `before`.
GPU_FN SampleFloor compare_listed(Thread t, u32 count, u64 before, u64 limit, SampleScratch s) {
  constexpr u32 kSharers = 8;  // lanes that share the comparisons of a word
  const u32 num_threads = t.num_warps * kWarpSize;
  u64 lowest = 0;  // its complement: the lower the rank, the larger
  for (u32 first = 0; first < count; first += num_threads / kSharers) {
    const u32 i = first + t.index / kSharers;
    const u64 rank = i < count ? s.listed[i] : ~static_cast<u64>(0);
    u64 passed = 0;
    for (u32 j = t.index % kSharers; j < count; j += kSharers) {
      passed += s.listed[j] > rank ? s.listed_masses[j] : 0;
    }
    GPU_UNROLL
    for (u32 mask = 1; mask < kSharers; mask *= 2) passed += shuffle_xor(t, passed, mask);
    if (before + passed <= limit && ~rank > lowest) lowest = ~rank;
  }
  const u64 rank = ~block_max(t, lowest, s.of_warps);
  SampleFloor floor;
  floor.logit = number_of(rank);
  floor.id = place_of(rank);
  return floor;
}

// ---- cuts

/// What a cut leaves: words down to a floor. All of them are listed, or none is (num_listed = 0).
struct SampleCut {
  SampleFloor floor;
  u32 num_listed;  // some of them may be below the floor
};

/// A cut among few words that lie near the likeliest, if it is there: lanes' largest words, the
/// fewest that there can be, tell how near. num_listed is 0 if not. needed: what has to be among
/// them, in what fill_buckets_with_largest() counts.
template <class Floats>
GPU_FN SampleCut cut_near(Thread t, SampleWords<Floats> words, SampleSearch search, bool by_mass,
                          u32 needed, u64 limit, SampleScratch s) {
  SampleCut cut;
  cut.floor = no_floor();
  cut.num_listed = 0;
  fill_buckets_with_largest(t, search, by_mass, s);
  const SampleBucket found = find_bucket(t, false, needed - 1, s);
  if (found.bucket == kSampleBuckets) return cut;
  NearWords near;
  near.end = (found.bucket + 1) << mark_shift(1);
  const u32 count = list_words(t, words, search, near, by_mass, s);
  if (count > kSampleList) return cut;
  cut.floor = compare_listed(t, count, 0, limit, s);
  cut.num_listed = count;
  return cut;
}

/// The floor with which words stay as long as those before them come to no more than the limit:
/// their number, or their mass. is_share: the limit is a share, in 2^-64, of what all words that
/// the search looks at come to.
template <class Place>
GPU_FN SampleFloor find_floor(Thread t, SampleWords<typename Place::Floats> words,
                              SampleSearch search, bool by_mass, bool is_share, u64 limit,
                              SampleScratch s) {
  fill_buckets<Place>(t, words, search, AllWords(), by_mass, s);
  SampleBucket found = find_bucket(t, is_share, limit, s);
  if (found.bucket == kSampleBuckets) {
    cluster_sync(t);  // all have read the sums
    return no_floor();
  }
  limit = found.limit;
  u64 before = 0;
  WordsWith known;
  known.digits = 0;
  known.mark = 0;
  known.order = 0;
  for (;;) {
    before += found.before;
    known = with_digit(known, found.bucket);
    const u32 count = list_words(t, words, search, known, by_mass, s);
    if (count <= kSampleList) return compare_listed(t, count, before, limit, s);
    fill_buckets<Place>(t, words, search, known, by_mass, s);
    found = find_bucket(t, false, limit - before, s);
  }
}

/// The likeliest words.
template <class Place>
GPU_FN SampleCut cut_by_number(Thread t, SampleWords<typename Place::Floats> words,
                               SampleSearch search, u32 number, SampleScratch s) {
  SampleCut cut;
  cut.num_listed = 0;
  if (number <= kSampleList) {
    cut = cut_near(t, words, search, false, number, number - 1, s);
  }
  if (cut.num_listed > 0) return cut;
  cut.floor = find_floor<Place>(t, words, search, false, false, number - 1, s);
  return cut;
}

/// Drops all words below the floor.
template <class Floats>
GPU_FN void drop_words(Thread t, SampleWords<Floats> words, SampleFloor floor) {
  for (u32 segment = words.first_segment + t.warp; segment < words.end_segment;
       segment += t.num_warps) {
    for (u32 i = t.lane; i < kSegmentWords; i += kWarpSize) {
      Floats logit = words_of_segment(words, segment) + i;
      if (!stays(floor, *logit, segment * kSegmentWords + i)) *logit = as_f32(0xff800000u);
    }
    warp_sync(t);
  }
}

/// How far the words may be that top-p keeps: what lies further, if it were all words, is half of
/// what it drops.
GPU_FN float reach_of_top_p(float top_p, float drawn, u32 num_segments) {
  const float most = static_cast<float>(num_segments * kSegmentWords);
  return 1.0f + 1.44269504f * gpu_log(most / ((1.0f - top_p) * drawn));
}

/// Top-p of all words that lie within `reach`. `drawn` is of e^((logit - largest) / temperature),
/// of all words.
template <class Place>
GPU_FN SampleCut cut_by_mass(Thread t, SampleWords<typename Place::Floats> words, float top_p,
                             SampleMeasure measure, float reach, float drawn, SampleScratch s) {
  const SampleSearch search =
      search_within(measure, gpu_min(reach, reach_of_top_p(top_p, drawn, s.num_segments)));
  const u64 share = static_cast<u64>(top_p * 4294967296.0f) << 32;
  const u64 limit = mul_hi(share, static_cast<u64>(drawn * 2147483648.0f));
  const float needed = top_p * drawn * 262144.0f * 1.0001f + 1.0f;  // whatever was rounded
  SampleCut cut;
  cut.num_listed = 0;
  if (needed < 4294967040.0f) {
    cut = cut_near(t, words, search, true, static_cast<u32>(needed), limit, s);
  }
  if (cut.num_listed > 0) return cut;
  cut.floor = find_floor<Place>(t, words, search, true, false, limit, s);
  return cut;
}

/// Top-p of the words that top-k left, if they are listed: those below its floor count nothing.
GPU_FN SampleFloor cut_listed(Thread t, SampleCut cut, float top_p, SampleMeasure measure,
                              SampleScratch s) {
  u64 kept = 0;
  block_sync(t);
  for (u32 i = t.index; i < cut.num_listed; i += t.num_warps * kWarpSize) {
    const float logit = number_of(s.listed[i]);
    const u32 mass = whole_mass(relative_mass(distance(measure, logit)));
    s.listed_masses[i] = stays(cut.floor, logit, place_of(s.listed[i])) ? mass : 0;
  }
  block_sync(t);
  for (u32 i = t.lane; i < cut.num_listed; i += kWarpSize) kept += s.listed_masses[i];
  const u64 share = static_cast<u64>(top_p * 4294967296.0f) << 32;
  return compare_listed(t, cut.num_listed, 0, mul_hi(share, warp_sum(t, kept)), s);
}

/// Top-k and then top-p. reach: of the words that count; `drawn` as of cut_by_mass().
template <class Place>
GPU_FN SampleCut cut_words(Thread t, SampleWords<typename Place::Floats> words, SampleMode mode,
                           SampleMeasure measure, float reach, float drawn, SampleScratch s) {
  const float top_p = gpu_max(mode.top_p, 0.0f);
  if (mode.top_k == 0 && top_p < 1.0f) {
    return cut_by_mass<Place>(t, words, top_p, measure, reach, drawn, s);
  }
  SampleCut cut;
  cut.floor = no_floor();
  cut.num_listed = 0;
  if (mode.top_k == 0) return cut;
  const SampleSearch search = search_within(measure, reach);
  cut = cut_by_number<Place>(t, words, search, mode.top_k, s);
  if (!(top_p < 1.0f)) return cut;
  if (cut.num_listed > 0) {
    cut.floor = cut_listed(t, cut, top_p, measure, s);
    return cut;
  }
  drop_words(t, words, cut.floor);
  const u64 share = static_cast<u64>(top_p * 4294967296.0f) << 32;
  cut.floor = find_floor<Place>(t, words, search, true, true, share, s);
  return cut;
}

}  // namespace kernels
}  // namespace fovea
