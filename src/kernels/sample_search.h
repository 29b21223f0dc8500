#pragma once

// How a row's words are told apart: by how far they are from the likeliest, digit by digit, as a
// radix sort would tell them; and when few are left, by comparing each with all others.

#include "sample_words.h"

namespace fovea {
namespace kernels {

constexpr GPU_CONST u32 kSampleList = 128;     // so few words that each is compared with all others
constexpr GPU_CONST u32 kSampleBuckets = 512;  // one for each digit
static_assert(kSampleBuckets <= kWarpSize * kWarpSize, "a lane for each of a lane's");
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
  u32 num_segments;          // of the row
  u32 num_blocks;            // of the cluster
  GPU_SHARED u32* low;       // [kSampleBuckets, copies] cells of buckets: lower bits of sums
  GPU_SHARED u32* high;      // [kSampleBuckets, copies] right behind them, the upper bits
  GPU_SHARED u64* sums;      // [num_blocks, kSampleBuckets] buckets, without copies
  GPU_SHARED u64* totals;    // [kSampleBuckets] as find_bucket() looks at them
  GPU_SHARED u64* list;      // [2, num_blocks, kSampleList] ranks, in turns
  GPU_SHARED u64* listed;    // [kSampleList] the same side by side
  GPU_SHARED u64* of_warps;  // [kWarpSize]
  GPU_SHARED u64* masses;    // [num_segments] what they count in the draw
  GPU_SHARED u64* found;     // [2] of a bucket
  GPU_SHARED u64* passing;   // the rank of a listed word
  GPU_SHARED u64* random;
  SampleKnown known;
  GPU_SHARED u32* added;          // [num_segments, 2] and more of them, in halves of 16 bits
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
         4 * ((6 + 2 * kWarpSize) * num_segments + kSampleList + 2 * num_blocks + 6);
}
GPU_FN SampleScratch sample_scratch(GPU_SHARED char* memory, u32 num_segments, u32 num_blocks,
                                    u32 copies) {
  SampleScratch s;
  s.num_segments = num_segments;
  s.num_blocks = num_blocks;
  s.low = reinterpret_cast<GPU_SHARED u32*>(memory);
  s.high = s.low + kSampleBuckets * copies;
  s.sums = reinterpret_cast<GPU_SHARED u64*>(s.high + kSampleBuckets * copies);
  s.totals = s.sums + num_blocks * kSampleBuckets;
  s.list = s.totals + kSampleBuckets;
  s.listed = s.list + 2 * num_blocks * kSampleList;
  s.of_warps = s.listed + kSampleList;
  s.masses = s.of_warps + kWarpSize;
  s.found = s.masses + num_segments;
  s.passing = s.found + 2;
  s.random = s.passing + 1;
  s.known.likeliest_of_row = s.random + 1;
  s.known.likeliest = s.known.likeliest_of_row + 1;
  s.known.total = reinterpret_cast<GPU_SHARED u32*>(s.known.likeliest + num_segments);
  s.known.drawn = s.known.total + num_segments;
  s.known.near = s.known.drawn + num_segments;
  s.known.smallest = s.known.near + num_segments;
  s.known.of_lanes = s.known.smallest + num_segments;
  s.known.of_row = s.known.of_lanes + 2 * num_segments * kWarpSize;
  s.added = s.known.of_row + 4;
  s.listed_masses = s.added + 2 * num_segments;
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

/// Words whose first digits are known, one at least.
struct WordsWith {
  u32 digits;
  u32 mark;
  u64 order;
};
GPU_FN WordsWith with_first_digit(u32 digit) {
  WordsWith known;
  known.digits = 1;
  known.mark = digit;
  known.order = 0;
  return known;
}
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
/// The first digit of a mark; kSampleBuckets or more of words out of reach.
GPU_FN u32 first_digit(u32 mark) { return mark >> mark_shift(1); }
/// The first digit that is not known.
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
//
// A bucket has several cells, which lanes share, so that they seldom add to the same one.

/// The cell of a bucket that a lane adds to.
GPU_FN u32 cell_of(Thread t, u32 bucket, u32 columns) {
  return bucket * columns + t.lane % columns;
}
/// The n-th cell of a bucket, for whoever sums it up: each lane begins with another, because of the
/// banks.
GPU_FN u32 nth_cell(u32 bucket, u32 n, u32 columns) {
  return bucket * columns + (n + bucket * columns / kWarpSize) % columns;
}
/// A bucket whose cells are in s.low alone.
template <u32 kColumns>
GPU_FN u32 sum_cells(u32 bucket, SampleScratch s) {
  u32 sum = 0;
  GPU_UNROLL
  for (u32 n = 0; n < kColumns; ++n) sum += s.low[nth_cell(bucket, n, kColumns)];
  return sum;
}
/// What one of a block's buckets comes to, to all blocks.
GPU_FN void tell_sum(Thread t, u32 bucket, u64 sum, SampleScratch s) {
  const u32 at = t.block.y * kSampleBuckets + bucket;
  for (u32 peer = 0; peer < s.num_blocks; ++peer) store_to_peer(t, s.sums + at, sum, peer);
}

/// Where buckets are that are looked at: in the block's own cells, or told by all blocks.
template <u32 kColumns>
struct OwnCells {
  using Sum = u32;
};
template <class T>
struct ToldSums {
  using Sum = T;
};
template <u32 kColumns>
GPU_FN u32 sum_of(OwnCells<kColumns>, u32 bucket, SampleScratch s) {
  return sum_cells<kColumns>(bucket, s);
}
template <class T>
GPU_FN T sum_of(ToldSums<T>, u32 bucket, SampleScratch s) {
  T total = 0;
  for (u32 peer = 0; peer < s.num_blocks; ++peer) {
    total += static_cast<T>(s.sums[peer * kSampleBuckets + bucket]);
  }
  return total;
}

/// The block's own cells are used again, sums are written over.
template <u32 kColumns>
GPU_FN void empty_cells(Thread t, OwnCells<kColumns>, SampleScratch s) {
  clear_buckets(t, s.low, kSampleBuckets * kColumns);
}
template <class T>
GPU_FN void empty_cells(Thread, ToldSums<T>, SampleScratch) {}

/// Where a limit lies among words in their order.
struct SampleBucket {
  u32 bucket;  // kSampleBuckets: there is none
  u64 before;  // what the words in front of the bucket come to
};
/// The bucket at which what lies before it passes the limit. Buckets must be there for all threads
/// of the block; its own cells are empty afterwards.
template <class Place>
GPU_FN SampleBucket find_bucket(Thread t, Place buckets, typename Place::Sum limit,
                                SampleScratch s) {
  using Sum = typename Place::Sum;
  // A lane of the first warp looks at kEach of them side by side.
  constexpr u32 kEach = kSampleBuckets / kWarpSize;
  for (u32 bucket = t.index; bucket < kSampleBuckets; bucket += t.num_warps * kWarpSize) {
    s.totals[bucket % kEach * kWarpSize + bucket / kEach] = sum_of(buckets, bucket, s);
  }
  block_sync(t);
  empty_cells(t, buckets, s);
  if (t.warp == 0) {
    Sum own = 0;
    GPU_UNROLL
    for (u32 n = 0; n < kEach; ++n) own += static_cast<Sum>(s.totals[n * kWarpSize + t.lane]);
    Sum before = sum_before(t, own);
    const u32 lane = first_lane(t, before + own > limit);
    u32 bucket = kSampleBuckets;
    if (lane < kWarpSize) {
      before = shuffle(t, before, lane);
      own = t.lane < kEach ? static_cast<Sum>(s.totals[t.lane * kWarpSize + lane]) : 0;
      before += sum_before(t, own);
      const u32 nth = first_lane(t, before + own > limit);
      bucket = lane * kEach + nth;
      before = shuffle(t, before, nth);
    }
    if (t.lane == 0) {
      s.found[0] = bucket;
      s.found[1] = before;
    }
  }
  block_sync(t);
  SampleBucket found;
  found.bucket = static_cast<u32>(s.found[0]);
  found.before = s.found[1];
  return found;
}

/// What a word adds to its bucket: one, or about its share of a mass in 2^-23.
struct OneEach {};
struct ShareOfMass {
  SampleMeasure measure;
  float log_mass;  // powers of two of the likeliest word
};
GPU_FN u32 weight_of(OneEach, float) { return 1; }
GPU_FN u32 weight_of(ShareOfMass of, float logit) {
  const float share = gpu_exp2_flushed(-(distance(of.measure, logit) + of.log_mass));
  return as_u32(share + 1.0f) - 0x3f800000u;
}

/// Weighs the words by their first digit, in empty cells of s.low, and tells all blocks. The cells
/// are left as they are.
template <class Place, class Weight>
GPU_FN void weigh_words(Thread t, SampleWords<typename Place::Floats> words, SampleSearch search,
                        Weight weight, SampleScratch s) {
  constexpr u32 kColumns = Place::kCopies;
  for (u32 segment = words.first_segment + t.warp; segment < words.end_segment;
       segment += t.num_warps) {
    GPU_UNROLL
    for (u32 step = 0; step < kSegmentSteps; ++step) {
      const Float4 four = load_words(t, words, segment, step);
      GPU_UNROLL
      for (u32 j = 0; j < 4; ++j) {
        const u32 digit = first_digit(mark_of(search, four.value[j]));
        const u32 own = weight_of(weight, four.value[j]);
        if (digit < kSampleBuckets) atomic_add_u32(s.low + cell_of(t, digit, kColumns), own);
      }
    }
  }
  block_sync(t);
  for (u32 bucket = t.index; bucket < kSampleBuckets; bucket += t.num_warps * kWarpSize) {
    tell_sum(t, bucket, sum_cells<kColumns>(bucket, s), s);
  }
  cluster_sync(t);
}

/// Adds to a bucket.
GPU_FN void add_mass(WordsInShared, GPU_SHARED u32* low, GPU_SHARED u32* high, u32 mass) {
  atomic_add_u32(low, mass & 0xffff);
  atomic_add_u32(high, mass >> 16);
}
GPU_FN void add_mass(WordsInMemory, GPU_SHARED u32* low, GPU_SHARED u32* high, u32 mass) {
  const u32 before = atomic_add_u32(low, mass);
  if (before + mass < before) atomic_add_u32(high, 1);
}

/// Sums the masses of the words that have the digits, or numbers them, by their next digit, and
/// tells all blocks.
template <class Place>
GPU_FN void sum_words(Thread t, SampleWords<typename Place::Floats> words, SampleSearch search,
                      WordsWith known, bool by_mass, SampleScratch s) {
  constexpr u32 kColumns = Place::kCopies;
  clear_buckets(t, s.low, 2 * kSampleBuckets * kColumns);
  block_sync(t);
  for (u32 segment = words.first_segment + t.warp; segment < words.end_segment;
       segment += t.num_warps) {
    for (u32 found = words_in(t, words, segment, search, known); found != 0; found &= found - 1) {
      const u32 word = word_at(t, lowest_bit(found)), id = segment * kSegmentWords + word;
      const float logit = words_of_segment(words, segment)[word];
      if (!is_in(known, logit, id)) continue;
      const u32 digit = next_digit(known, mark_of(search, logit), logit, id);
      const u32 at = cell_of(t, digit, kColumns);
      const float away = distance(search.measure, logit);
      add_mass(Place(), s.low + at, s.high + at, by_mass ? whole_mass(relative_mass(away)) : 1);
    }
  }
  block_sync(t);
  for (u32 bucket = t.index; bucket < kSampleBuckets; bucket += t.num_warps * kWarpSize) {
    u64 sum = 0;
    GPU_UNROLL
    for (u32 n = 0; n < kColumns; ++n) {
      const u32 at = nth_cell(bucket, n, kColumns);
      sum += s.low[at] + (static_cast<u64>(s.high[at]) << Place::kLowBits);
    }
    tell_sum(t, bucket, sum, s);
  }
  cluster_sync(t);
}

/// The bucket at which the largest words of lanes' halves alone pass the limit, numbered or by
/// mass, in 2^-18 of the likeliest word: there are few, and every block knows all of them. The
/// cells are empty before and afterwards.
template <class Place>
GPU_FN SampleBucket find_among_largest(Thread t, SampleSearch search, bool by_mass, u32 limit,
                                       SampleScratch s) {
  constexpr u32 kColumns = Place::kCopies < 8 ? Place::kCopies : 8;
  for (u32 i = t.index; i < 2 * s.num_segments * kWarpSize; i += t.num_warps * kWarpSize) {
    const float logit = as_f32(s.known.of_lanes[i]);
    const u32 digit = first_digit(mark_of(search, logit));
    const float mass = relative_mass(distance(search.measure, logit)) * 262144.0f;
    const u32 own = by_mass ? static_cast<u32>(mass) : 1;
    if (digit < kSampleBuckets) atomic_add_u32(s.low + cell_of(t, digit, kColumns), own);
  }
  block_sync(t);
  return find_bucket(t, OwnCells<kColumns>(), limit, s);
}

// ---- single words

/// Where a list begins: one is written while others may still read the last.
GPU_FN void begin_list(Thread t, SampleScratch s) {
  if (t.index == 0) {
    *s.counter = 0;
    *s.turn ^= 1;
  }
  block_sync(t);
}
/// Puts some of a lane's words of a segment to the list of its block, in every block.
template <class Floats>
GPU_FN void put_in_list(Thread t, SampleWords<Floats> words, u32 segment, u32 found,
                        SampleScratch s) {
  if (found == 0) return;
  GPU_SHARED u64* list = s.list + (*s.turn * s.num_blocks + t.block.y) * kSampleList;
  for (u32 place = atomic_add_u32(s.counter, count_bits(found)); found != 0; ++place) {
    const u32 at = word_at(t, lowest_bit(found));
    found &= found - 1;
    if (place >= kSampleList) break;
    const u64 rank = ranked(words_of_segment(words, segment)[at], segment * kSegmentWords + at);
    for (u32 peer = 0; peer < s.num_blocks; ++peer) store_to_peer(t, list + place, rank, peer);
  }
}
/// Puts what all blocks have listed to s.listed, and to s.listed_masses what it counts in a cut.
/// The number of words; when that is more than kSampleList, they are not there.
GPU_FN u32 gather_lists(Thread t, SampleSearch search, bool by_mass, SampleScratch s) {
  GPU_SHARED u64* list = s.list + *s.turn * s.num_blocks * kSampleList;
  GPU_SHARED u32* list_counts = s.list_counts + *s.turn * s.num_blocks;
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
  if (t.index == 0) *s.passing = 0;
  block_sync(t);
  return total;
}

/// Lists words, as gather_lists() says.
template <class Range, class Floats>
GPU_FN u32 list_words(Thread t, SampleWords<Floats> words, SampleSearch search, Range range,
                      bool by_mass, SampleScratch s) {
  begin_list(t, s);
  for (u32 segment = words.first_segment + t.warp; segment < words.end_segment;
       segment += t.num_warps) {
    const GPU_SHARED u32* of_lanes = s.known.of_lanes + 2 * segment * kWarpSize + t.lane;
    const float largest = gpu_max(as_f32(of_lanes[0]), as_f32(of_lanes[kWarpSize]));
    if (lanes_where(t, reaches(range, mark_of(search, largest))) == 0) continue;
    u32 found = words_in(t, words, segment, search, range), left = 0;
    for (; found != 0; found &= found - 1) {
      const u32 word = lowest_bit(found), at = word_at(t, word);
      const float logit = words_of_segment(words, segment)[at];
      if (is_in(range, logit, segment * kSegmentWords + at)) left |= 1u << word;
    }
    put_in_list(t, words, segment, left, s);
  }
  return gather_lists(t, search, by_mass, s);
}

/// Lists the words of a bucket, by mass, and sums up what the segments' words in front of it count,
/// to s.masses of each block.
template <class Floats>
GPU_FN u32 list_and_sum(Thread t, SampleWords<Floats> words, SampleSearch search, u32 bucket,
                        SampleScratch s) {
  NearWords in_front, up_to;
  in_front.end = bucket << mark_shift(1);
  up_to.end = (bucket + 1) << mark_shift(1);
  begin_list(t, s);
  for (u32 segment = words.first_segment + t.warp; segment < words.end_segment;
       segment += t.num_warps) {
    u32 before = 0, up_to_end = 0;
    GPU_UNROLL
    for (u32 step = 0; step < kSegmentSteps; ++step) {
      const Float4 four = load_words(t, words, segment, step);
      GPU_UNROLL
      for (u32 j = 0; j < 4; ++j) {
        const u32 mark = mark_of(search, four.value[j]), bit = 1u << (4 * step + j);
        before |= may_be_in(in_front, mark) ? bit : 0;
        up_to_end |= may_be_in(up_to, mark) ? bit : 0;
      }
    }
    put_in_list(t, words, segment, up_to_end & ~before, s);
    u64 own = 0, other = 0;
    while (before != 0) {
      // Two at a time: neither waits for the other.
      const u32 first = lowest_bit(before);
      before &= before - 1;
      const u32 second = before != 0 ? lowest_bit(before) : first;
      const float logit = words_of_segment(words, segment)[word_at(t, first)];
      const float next = words_of_segment(words, segment)[word_at(t, second)];
      own += whole_mass(relative_mass(distance(search.measure, logit)));
      other += before != 0 ? whole_mass(relative_mass(distance(search.measure, next))) : 0;
      before &= before - 1;
    }
    own = warp_sum(t, own + other);
    if (t.lane < s.num_blocks) store_to_peer(t, s.masses + segment, own, t.lane);
  }
  return gather_lists(t, search, true, s);
}

/// What all segments come to that list_and_sum() summed up.
GPU_FN u64 sum_of_masses(Thread t, SampleScratch s) {
  u64 sum = 0;
  for (u32 i = t.lane; i < s.num_segments; i += kWarpSize) sum += s.masses[i];
  return warp_sum(t, sum);
}

/// A floor that is perhaps there.
struct FoundFloor {
  bool is_there;
  SampleFloor floor;
};
/// The word listed with which the limit is passed, in front of which others come to `before`, and
/// those of the list that are likelier.
GPU_FN FoundFloor compare_listed(Thread t, u32 count, u64 before, u64 limit, SampleScratch s) {
  constexpr u32 kSharers = 8;  // lanes that share the comparisons of a word
  const u32 num_threads = t.num_warps * kWarpSize;
  for (u32 first = 0; first < count; first += num_threads / kSharers) {
    const u32 i = first + t.index / kSharers;
    const u64 rank = i < count ? s.listed[i] : ~static_cast<u64>(0);
    u64 passed = t.index % kSharers == 0 ? before : 0;
    for (u32 j = t.index % kSharers; j < count; j += kSharers) {
      passed += s.listed[j] > rank ? s.listed_masses[j] : 0;
    }
    GPU_UNROLL
    for (u32 mask = 1; mask < kSharers; mask *= 2) passed += shuffle_xor(t, passed, mask);
    const bool is_it = i < count && passed <= limit && limit - passed < s.listed_masses[i];
    if (is_it && t.index % kSharers == 0) *s.passing = rank;
  }
  block_sync(t);
  FoundFloor found;
  found.is_there = *s.passing != 0;
  found.floor.logit = number_of(*s.passing);
  found.floor.id = place_of(*s.passing);
  return found;
}

/// Puts what the listed words count that stay to s.added; once.
GPU_FN void add_listed(Thread t, u32 count, SampleFloor floor, SampleScratch s) {
  for (u32 i = t.index; i < count; i += t.num_warps * kWarpSize) {
    const u64 rank = s.listed[i];
    if (!stays(floor, number_of(rank), place_of(rank))) continue;
    GPU_SHARED u32* added = s.added + 2 * (place_of(rank) / kSegmentWords);
    add_mass(WordsInShared(), added, added + 1, s.listed_masses[i]);
  }
  block_sync(t);
}

}  // namespace kernels
}  // namespace fovea
