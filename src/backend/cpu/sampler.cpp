#include "backend/cpu/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"

namespace fovea::cpu {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

template <class T>
std::span<const T> range_of(std::span<const T> all, std::int32_t begin, std::int32_t count,
                            const char* what) {
  FOVEA_CHECK(begin >= 0 && count >= 0 &&
                  static_cast<std::size_t>(begin) + static_cast<std::size_t>(count) <= all.size(),
              "{} {} + {} of {}", what, begin, count, all.size());
  return all.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count));
}

// The lists that one row points to.
struct RowLists {
  std::span<const std::int32_t> allowed;
  std::span<const std::int32_t> suppressed;
  std::span<const SeenWord> seen;
  std::span<const WordBias> biases;

  static RowLists of(const SamplingRow& row, const SampleArgs& args) {
    const bool penalised =
        row.repetition_penalty != 1 || row.presence_penalty != 0 || row.frequency_penalty != 0;
    FOVEA_CHECK(row.repetition_penalty > 0, "repetition_penalty {}", row.repetition_penalty);
    return {range_of(args.mask_ids, row.allowed_begin, row.allowed_count, "allowed ids"),
            range_of(args.mask_ids, row.suppressed_begin, row.suppressed_count, "suppressed ids"),
            range_of(args.seen, row.seen_begin, penalised ? row.seen_count : 0, "seen words"),
            range_of(args.biases, row.bias_begin, row.bias_count, "biases")};
  }
};

float penalised(float logit, const SamplingRow& row, std::int32_t answer_count) {
  logit = logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty;
  if (answer_count > 0) logit -= row.presence_penalty;
  return logit - row.frequency_penalty * static_cast<float>(answer_count);
}

// Penalties, then biases, on the logits that find(id) points to (null = not among them).
template <class Find>
void adjust(const SamplingRow& row, const RowLists& lists, const Find& find) {
  for (const SeenWord& word : lists.seen) {
    if (float* logit = find(word.id)) *logit = penalised(*logit, row, word.answer_count);
  }
  for (const WordBias& bias : lists.biases) {
    if (float* logit = find(bias.id)) *logit += bias.value;
  }
}

// The logits that remain after the masks. With an allowed list they are few, and id(i) names them.
struct MaskedLogits {
  const float* logits;
  std::int64_t count;
  const std::int32_t* ids;  // null = element i is word i

  std::int32_t id(std::int64_t i) const {
    return ids == nullptr ? static_cast<std::int32_t>(i) : ids[i];
  }
};

// The logits of the allowed words that are not suppressed, by ascending id.
MaskedLogits gather_allowed(std::span<const float> logits, const SamplingRow& row,
                            const RowLists& lists, SamplerScratch& scratch) {
  std::vector<std::int32_t>& ids = scratch.ids;
  ids.assign(lists.allowed.begin(), lists.allowed.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  std::erase_if(ids, [&](std::int32_t id) {
    return id < 0 || static_cast<std::size_t>(id) >= logits.size() ||
           std::find(lists.suppressed.begin(), lists.suppressed.end(), id) !=
               lists.suppressed.end();
  });
  float* few = scratch.logits.get<float>(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) few[i] = logits[static_cast<std::size_t>(ids[i])];
  adjust(row, lists, [&](std::int32_t id) -> float* {
    const auto found = std::lower_bound(ids.begin(), ids.end(), id);
    return found != ids.end() && *found == id ? few + (found - ids.begin()) : nullptr;
  });
  return {few, static_cast<std::int64_t>(ids.size()), ids.data()};
}

MaskedLogits adjust_and_mask(std::span<const float> logits, const SamplingRow& row,
                             const RowLists& lists, SamplerScratch& scratch) {
  if (!lists.allowed.empty()) return gather_allowed(logits, row, lists, scratch);
  const auto count = static_cast<std::int64_t>(logits.size());
  if (lists.suppressed.empty() && lists.seen.empty() && lists.biases.empty()) {
    return {logits.data(), count, nullptr};
  }
  float* all = scratch.logits.get<float>(logits.size());
  std::memcpy(all, logits.data(), logits.size_bytes());
  const auto find = [&](std::int32_t id) -> float* {
    return id >= 0 && id < count ? all + id : nullptr;
  };
  adjust(row, lists, find);
  for (const std::int32_t id : lists.suppressed) {
    if (float* logit = find(id)) *logit = kMinusInfinity;
  }
  return {all, count, nullptr};
}

// No finite largest logit: either +infinity is there, or nothing is left at all.
SampledWord pick_degenerate(const MaskedLogits& masked, float largest,
                            std::span<const std::int32_t> suppressed) {
  if (largest > 0) {
    for (std::int64_t i = 0; i < masked.count; ++i) {
      if (masked.logits[i] == largest) return {masked.id(i), 0.0f};
    }
  }
  for (std::int64_t i = 0; i < masked.count; ++i) {
    if (std::find(suppressed.begin(), suppressed.end(), masked.id(i)) == suppressed.end()) {
      return {masked.id(i), kMinusInfinity};
    }
  }
  return {0, kMinusInfinity};
}

// The `count` likeliest possible words with their log softmax, log_total = log sum exp(x -
// largest).
void list_top(const MaskedLogits& masked, std::int32_t count, float largest, double log_total,
              std::vector<SampledWord>& top) {
  const auto most = static_cast<std::size_t>(count);
  // Kept sorted as logits; ids ascend, so that a later equal never passes an earlier one.
  float least = kMinusInfinity;
  for (std::int64_t i = 0; i < masked.count; ++i) {
    const float logit = masked.logits[i];
    if (!(logit > least)) continue;
    const auto place = std::find_if(top.begin(), top.end(),
                                    [&](const SampledWord& w) { return w.logprob < logit; });
    top.insert(place, {masked.id(i), logit});
    if (top.size() > most) top.pop_back();
    if (top.size() == most) least = top.back().logprob;
  }
  for (SampledWord& word : top) {
    word.logprob = static_cast<float>(static_cast<double>(word.logprob) -
                                      static_cast<double>(largest) - log_total);
  }
}

bool likelier(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

void keep_top_k(std::vector<Candidate>& words, std::int32_t k) {
  if (k <= 0 || static_cast<std::size_t>(k) >= words.size()) return;
  std::nth_element(words.begin(), words.begin() + (k - 1), words.end(), likelier);
  words.resize(static_cast<std::size_t>(k));
}

// Sorts only as far as the mass reaches: the words kept are usually few.
void keep_top_p(std::vector<Candidate>& words, float top_p) {
  if (!(top_p < 1)) return;
  double total = 0;
  for (const Candidate& word : words) total += word.mass;
  const double limit = static_cast<double>(top_p) * total;
  double before = 0;
  std::size_t kept = 0;
  for (std::size_t sorted = 0; sorted < words.size();) {
    const std::size_t end = std::min(words.size(), std::max<std::size_t>(64, 4 * sorted));
    const auto first = words.begin() + static_cast<std::ptrdiff_t>(sorted);
    const auto last = words.begin() + static_cast<std::ptrdiff_t>(end);
    if (end < words.size()) std::nth_element(first, last, words.end(), likelier);
    std::sort(first, last, likelier);
    for (; kept < end; ++kept) {
      if (kept > 0 && before > limit) {
        words.resize(kept);
        return;
      }
      before += words[kept].mass;
    }
    sorted = end;
  }
}

void keep_min_p(std::vector<Candidate>& words, float min_p) {
  if (!(min_p > 0)) return;
  // The likeliest word has mass 1 and stays whatever min_p says.
  const double least = std::min(1.0, static_cast<double>(min_p));
  std::erase_if(words, [&](const Candidate& word) { return word.mass < least; });
}

std::size_t draw(std::vector<Candidate>& words, double uniform) {
  std::sort(words.begin(), words.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  double total = 0;
  for (const Candidate& word : words) total += word.mass;
  double left = uniform * total;
  std::size_t last = 0;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i].mass <= 0) continue;
    last = i;  // rounding may leave a little at the end
    left -= words[i].mass;
    if (left < 0) break;
  }
  return last;
}

}  // namespace

std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t counter) {
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53;
  constexpr std::uint64_t kMultiplier1 = 0xCD9E8D57;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9;
  constexpr std::uint32_t kWeyl1 = 0xBB67AE85;
  std::array<std::uint32_t, 4> x = {static_cast<std::uint32_t>(counter),
                                    static_cast<std::uint32_t>(counter >> 32), 0, 0};
  auto key0 = static_cast<std::uint32_t>(key);
  auto key1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = kMultiplier0 * x[0];
    const std::uint64_t product1 = kMultiplier1 * x[2];
    x = {static_cast<std::uint32_t>(product1 >> 32) ^ x[1] ^ key0,
         static_cast<std::uint32_t>(product1),
         static_cast<std::uint32_t>(product0 >> 32) ^ x[3] ^ key1,
         static_cast<std::uint32_t>(product0)};
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return x;
}

double uniform_draw(std::uint64_t seed, std::uint64_t position) {
  const std::array<std::uint32_t, 4> words = philox(seed, position);
  const std::uint64_t bits = (std::uint64_t{words[0]} << 32 | words[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

SampledWord sample_word(std::span<const float> logits, const SamplingRow& row,
                        const SampleArgs& args, const KernelTable& kernels,
                        SamplerScratch& scratch) {
  const RowLists lists = RowLists::of(row, args);
  const MaskedLogits masked = adjust_and_mask(logits, row, lists, scratch);
  float largest = kMinusInfinity;
  double total = 0;
  kernels.max_sum_exp(masked.logits, masked.count, &largest, &total);
  scratch.top.clear();
  if (!std::isfinite(largest)) {
    const SampledWord word = pick_degenerate(masked, largest, lists.suppressed);
    if (row.num_top > 0) scratch.top.push_back(word);
    return word;
  }
  const double log_total = std::log(total);
  if (row.num_top > 0) list_top(masked, row.num_top, largest, log_total, scratch.top);

  if (!(row.temperature > 0)) {
    const float* found = std::find(masked.logits, masked.logits + masked.count, largest);
    return {masked.id(found - masked.logits), static_cast<float>(-log_total)};
  }
  const double scale = 1.0 / static_cast<double>(row.temperature);
  std::vector<Candidate>& words = scratch.candidates;
  words.clear();
  for (std::int64_t i = 0; i < masked.count; ++i) {
    const float logit = masked.logits[i];
    // Words e^-60 times less likely than the best are never drawn from 2^53 numbers.
    const double log_mass = (static_cast<double>(logit) - static_cast<double>(largest)) * scale;
    if (!(log_mass > -60.0)) continue;
    words.push_back({masked.id(i), logit, std::exp(log_mass)});
  }
  keep_top_k(words, row.top_k);
  keep_top_p(words, row.top_p);
  keep_min_p(words, row.min_p);
  const Candidate& chosen = words[draw(words, uniform_draw(row.seed, row.position))];
  const double logprob =
      static_cast<double>(chosen.logit) - static_cast<double>(largest) - log_total;
  return {chosen.id, static_cast<float>(logprob)};
}

}  // namespace fovea::cpu
