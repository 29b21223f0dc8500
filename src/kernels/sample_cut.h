#pragma once

// Where top-k, top-p and min-p cut a row, and its likeliest words.
//
// A cut is found as a radix sort would find it, digit by digit: words are counted, or their mass is
// summed, by the leading digit of how far they are from the likeliest; the digit at which the limit
// is passed is where the cut lies, and its words are told apart by the next digit. As soon as few
// words are left, each is compared with all others.

#include "sample_search.h"

namespace fovea {
namespace kernels {

// ---- cuts

/// What a cut leaves: words down to a floor. All of them are listed, or none is (num_listed = 0).
struct SampleCut {
  SampleFloor floor;
  u32 num_listed;   // some of them may be below the floor
  bool has_masses;  // s.masses has what the segments' words that stay count
};
GPU_FN SampleCut no_cut() {
  SampleCut cut;
  cut.floor = no_floor();
  cut.num_listed = 0;
  cut.has_masses = false;
  return cut;
}

/// A cut among few words that lie near the likeliest, if it is there: the largest words of lanes'
/// halves, the fewest that there can be, tell how near. num_listed is 0 if not. needed: what has to
/// be among them, in what find_among_largest() counts.
template <class Place>
GPU_FN SampleCut cut_near(Thread t, SampleWords<typename Place::Floats> words, SampleSearch search,
                          bool by_mass, u32 needed, u64 limit, SampleScratch s) {
  SampleCut cut = no_cut();
  const SampleBucket found = find_among_largest<Place>(t, search, by_mass, needed - 1, s);
  if (found.bucket == kSampleBuckets) return cut;
  NearWords near;
  near.end = (found.bucket + 1) << mark_shift(1);
  const u32 count = list_words(t, words, search, near, by_mass, s);
  if (count > kSampleList) return cut;
  const FoundFloor floor = compare_listed(t, count, 0, limit, s);
  if (!floor.is_there) return cut;
  cut.floor = floor.floor;
  cut.num_listed = count;
  return cut;
}

/// The floor among the words that have the digits, in front of which others come to `before`, with
/// which words stay as long as those before them come to no more than the limit. It must be there.
template <class Place>
GPU_FN SampleFloor floor_among(Thread t, SampleWords<typename Place::Floats> words,
                               SampleSearch search, WordsWith known, bool by_mass, u64 before,
                               u64 limit, SampleScratch s) {
  for (;;) {
    const u32 count = list_words(t, words, search, known, by_mass, s);
    if (count <= kSampleList) return compare_listed(t, count, before, limit, s).floor;
    sum_words<Place>(t, words, search, known, by_mass, s);
    const SampleBucket found = find_bucket(t, ToldSums<u64>(), limit - before, s);
    before += found.before;
    known = with_digit(known, found.bucket);
  }
}

/// The likeliest words.
template <class Place>
GPU_FN SampleCut cut_by_number(Thread t, SampleWords<typename Place::Floats> words,
                               SampleSearch search, u32 number, SampleScratch s) {
  SampleCut cut = no_cut();
  if (number <= kSampleList) {
    cut = cut_near<Place>(t, words, search, false, number, number - 1, s);
  }
  if (cut.num_listed > 0) return cut;
  weigh_words<Place>(t, words, search, OneEach(), s);
  const SampleBucket found = find_bucket(t, ToldSums<u32>(), number - 1, s);
  if (found.bucket < kSampleBuckets) {
    cut.floor = floor_among<Place>(t, words, search, with_first_digit(found.bucket), false,
                                   found.before, number - 1, s);
  }
  clear_buckets(t, s.low, kSampleBuckets * Place::kCopies);
  cluster_sync(t);  // all have read the sums
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

/// The share top_p, less than 1, of a mass.
GPU_FN u64 share_of(float top_p, u64 mass) {
  const u32 share = static_cast<u32>(top_p * 4294967296.0f);  // in 2^-32
  return (mass >> 32) * share + mul_hi(static_cast<u32>(mass), share);
}

/// How far the words may be that top-p keeps: what lies further, if it were all words, is half of
/// what it drops.
GPU_FN float reach_of_top_p(float top_p, float drawn, u32 num_segments) {
  const float most = static_cast<float>(num_segments * kSegmentWords);
  return 1.0f + gpu_log2_about(most) - gpu_log2_about((1.0f - top_p) * drawn);
}

/// Words stay as long as the mass of those before them is no more than a share, top_p, of `total`.
///
/// Rounded masses tell in which bucket the limit lies. What is in front of that is then summed up
/// exactly; seldom, that shows that it is the one beside. for_draw: the sums are what the draw
/// wants.
template <class Place>
GPU_FN SampleCut cut_by_mass(Thread t, SampleWords<typename Place::Floats> words,
                             SampleSearch search, float top_p, u64 total, bool for_draw,
                             SampleScratch s) {
  const u64 limit = share_of(top_p, total);
  ShareOfMass weight;
  weight.measure = search.measure;
  weight.log_mass = gpu_log2_about(static_cast<float>(total)) - 31.0f;
  weigh_words<Place>(t, words, search, weight, s);
  const u32 rough_limit = static_cast<u32>(top_p * 8388608.0f);
  u32 bucket = find_bucket(t, ToldSums<u32>(), rough_limit, s).bucket;
  if (bucket == kSampleBuckets) --bucket;
  SampleCut cut = no_cut();
  for (;;) {
    const u32 count = list_and_sum(t, words, search, bucket, s);
    const u64 before = sum_of_masses(t, s);
    const bool is_last = bucket == kSampleBuckets - 1;
    if (before > limit) {
      --bucket;
    } else if (count <= kSampleList) {
      const FoundFloor found = compare_listed(t, count, before, limit, s);
      if (found.is_there || is_last) {
        if (found.is_there) cut.floor = found.floor;
        if (for_draw) {
          add_listed(t, count, cut.floor, s);
        } else {
          cluster_sync(t);  // all have read the masses
        }
        cut.has_masses = for_draw;
        return cut;
      }
      ++bucket;
    } else {
      const WordsWith known = with_first_digit(bucket);
      sum_words<Place>(t, words, search, known, true, s);
      const SampleBucket found = find_bucket(t, ToldSums<u64>(), limit - before, s);
      if (found.bucket < kSampleBuckets) {
        cut.floor = floor_among<Place>(t, words, search, with_digit(known, found.bucket), true,
                                       before + found.before, limit, s);
      }
      if (found.bucket < kSampleBuckets || is_last) {
        cluster_sync(t);  // all have read the sums
        return cut;
      }
      ++bucket;
    }
    cluster_sync(t);  // all have read the sums
  }
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
  if (t.index == 0) *s.passing = 0;
  block_sync(t);
  for (u32 i = t.lane; i < cut.num_listed; i += kWarpSize) kept += s.listed_masses[i];
  const u64 limit = share_of(top_p, warp_sum(t, kept));
  return compare_listed(t, cut.num_listed, 0, limit, s).floor;
}

/// Whether it pays to look near the likeliest word first. Of logits like a model's, few are enough
/// for top-p where the largest of lanes' halves also have 0.72 of what it drops, nearly always.
GPU_FN bool is_near(SampleSummary row, float top_p) {
  return row.near > (1.0f - 0.28f * (1.0f - top_p)) * row.drawn;
}

/// Top-k and then top-p.
template <class Place>
GPU_FN SampleCut cut_words(Thread t, SampleWords<typename Place::Floats> words, SampleMode mode,
                           SampleMeasure measure, SampleSummary row, SampleScratch s) {
  const float reach = gpu_min(distance(measure, row.smallest), kSampleReach);
  const float top_p = gpu_max(mode.top_p, 0.0f);
  SampleSearch search;
  SampleCut cut = no_cut();
  u64 total;
  if (mode.top_k > 0) {
    search = search_within(measure, reach);
    cut = cut_by_number<Place>(t, words, search, mode.top_k, s);
    if (!(top_p < 1.0f)) return cut;
    if (cut.num_listed > 0) {
      cut.floor = cut_listed(t, cut, top_p, measure, s);
      return cut;
    }
    drop_words(t, words, cut.floor);
    list_and_sum(t, words, search, kSampleBuckets, s);  // all of them are in front of that
    total = sum_of_masses(t, s);
  } else {
    if (!(top_p < 1.0f)) return cut;
    const float kept = reach_of_top_p(top_p, row.drawn, s.num_segments);
    search = search_within(measure, gpu_min(reach, kept));
    total = static_cast<u64>(row.drawn * 2147483648.0f);
    // As no word counts more than 1, so many are needed at least.
    const float needed = top_p * row.drawn * 1.0001f;  // whatever was rounded
    if (needed < kSampleList && is_near(row, top_p)) {
      const u64 limit = share_of(top_p, total);
      const u32 in_parts = static_cast<u32>(needed * 262144.0f + 1.0f);
      cut = cut_near<Place>(t, words, search, true, in_parts, limit, s);
    }
    if (cut.num_listed > 0) return cut;
  }
  // With min-p, words count something else in the draw.
  return cut_by_mass<Place>(t, words, search, top_p, total, mode.min_p == 0, s);
}

}  // namespace kernels
}  // namespace fovea
