#include "engine/step_inputs.h"

#include <algorithm>
#include <map>

#include "base/check.h"

namespace fovea {
namespace {

using Number = SamplingPlace::Number;

bool contains(std::span<const TokenId> ids, TokenId id) {
  return std::ranges::find(ids, id) != ids.end();
}

// What the rule says about the number that the next token carries.
Number number_of(const TokenRule& rule, const PromptConfig& prompts) {
  switch (rule.slot) {
    case TokenRule::Slot::kNever:
      return Number::kNone;
    case TokenRule::Slot::kCoord:
      return Number::kCoord;
    case TokenRule::Slot::kSize:
      return Number::kSize;
    case TokenRule::Slot::kById:
      break;
  }
  const auto possible = [&](const std::optional<TokenId>& id) {
    return id && !contains(rule.suppressed, *id) &&
           (rule.allowed.empty() || contains(rule.allowed, *id));
  };
  const bool coord = possible(prompts.coord), size = possible(prompts.size);
  if (!coord && !size) return Number::kNone;
  // A choice between a number and the end: the number is worth reading before the choice is known.
  const bool nothing_else =
      !rule.allowed.empty() && std::ranges::all_of(rule.allowed, [&](TokenId id) {
        return id == prompts.eos || id == prompts.coord || id == prompts.size;
      });
  if (nothing_else && coord != size) return coord ? Number::kCoord : Number::kSize;
  return Number::kByChosenId;
}

}  // namespace

void StepInputs::add_row(const Token& token, std::int32_t row) {
  ids.push_back(token.kind == Token::Kind::kText ? token.id.value() : -1);
  if (token.kind == Token::Kind::kCoord) {
    coords.push_back(token.a);
    coord_rows.push_back(row);
  } else if (token.kind == Token::Kind::kSize) {
    sizes.insert(sizes.end(), {token.a, token.b});
    size_rows.push_back(row);
  }
}

void StepInputs::add_fed_row(const PlannedRows& rows, std::int32_t row, const Places& before) {
  const auto place = before.find(rows.order);
  FOVEA_CHECK(place != before.end(), "generation {} has no token in flight", rows.order);
  FedRows& fed = rows.fed_kind == Token::Kind::kText    ? fed_words
                 : rows.fed_kind == Token::Kind::kCoord ? fed_coords
                                                        : fed_sizes;
  FOVEA_CHECK((&fed == &fed_coords) <= (place->second.number == Number::kCoord) &&
                  (&fed == &fed_sizes) <= (place->second.number == Number::kSize),
              "generation {} was guessed to sample a number that nobody reads", rows.order);
  fed.rows.push_back(row);
  fed.places.push_back(place->second.index);
  ids.push_back(-1);  // a word's is put here on the device
}

void StepInputs::gather(const StepPlan& plan, const PromptConfig& prompts, const Places& before) {
  for (auto* values : {&ids, &positions, &slots, &image_rows, &coord_rows, &size_rows, &context_len,
                       &prefix_len, &adapter_slots, &fed_words.rows, &fed_words.places,
                       &fed_coords.rows, &fed_coords.places, &fed_sizes.rows, &fed_sizes.places}) {
    values->clear();
  }
  coords.clear();
  sizes.clear();
  query_start.assign(1, 0);
  std::size_t max_pages = 0;
  for (const PlannedRows& rows : plan.rows) {
    const Sequence& sequence = *rows.generation->sequence;
    const int image_end = 1 + sequence.image_tokens();
    max_pages = std::max(max_pages, sequence.pages().size());
    for (int position = rows.begin; position < rows.end; ++position) {
      const auto row = static_cast<std::int32_t>(ids.size());
      positions.push_back(position);
      slots.push_back(sequence.slot_of(position));
      if (position == 0) {
        ids.push_back(sequence.bos().value());
      } else if (position < image_end) {
        ids.push_back(-1);
        image_rows.push_back(row);
      } else if (rows.feeds_back && position == rows.end - 1) {
        add_fed_row(rows, row, before);
      } else {
        add_row(sequence.token_at(position), row);
      }
    }
    query_start.push_back(static_cast<std::int32_t>(ids.size()));
    context_len.push_back(rows.end);
    prefix_len.push_back(sequence.prefix_len());
    adapter_slots.push_back(rows.generation->adapter_slot);
  }
  page_table.assign(plan.rows.size() * max_pages, 0);
  for (std::size_t s = 0; s < plan.rows.size(); ++s) {
    const std::vector<PageId>& pages = plan.rows[s].generation->sequence->pages();
    for (std::size_t i = 0; i < pages.size(); ++i) page_table[s * max_pages + i] = pages[i].value();
  }
  gather_sampling(plan, prompts);
}

// Hidden states come in the order in which they are used: where a word is forced, the step's
// largest product is not needed.
void StepInputs::gather_sampling(const StepPlan& plan, const PromptConfig& prompts) {
  sampling.clear();
  places.clear();
  for (auto* values : {&last_rows, &forced_ids, &coord_places, &size_places, &late_places}) {
    values->clear();
  }
  for (const bool forced : {false, true}) {
    for (std::size_t s = 0; s < plan.rows.size(); ++s) {
      const PlannedRows& rows = plan.rows[s];
      const TokenRule& rule = rows.rule;
      if (!rows.samples || (rule.allowed.size() == 1) != forced) continue;
      const Sampling& how = rows.generation->sampling;
      SamplingPlace place{.row = s, .order = rows.order, .slot = rule.slot};
      place.number = number_of(rule, prompts);
      place.temperature = how.temperature;
      place.top_p = how.top_p;
      place.seed = how.seed;
      place.draw = rows.draw;
      place.num_top = forced ? 0 : std::max(0, how.num_top_logprobs);
      if (forced) {
        place.forced = rule.allowed.front();
        forced_ids.push_back(place.forced.value());
      }
      const auto index = static_cast<std::int32_t>(sampling.size());
      places.emplace(rows.order, Place{index, place.number});
      if (place.number == Number::kCoord) coord_places.push_back(index);
      if (place.number == Number::kSize) size_places.push_back(index);
      if (place.number == Number::kByChosenId) late_places.push_back(index);
      last_rows.push_back(query_start[s + 1] - 1);
      sampling.push_back(place);
    }
    if (!forced) num_words = static_cast<std::int64_t>(sampling.size());
  }
}

void StepInputs::gather_draws(const StepPlan& plan) {
  draws.clear();
  mask_ids.clear();
  seen.clear();
  biases.clear();
  wants_top = false;
  for (std::int64_t i = 0; i < num_words; ++i) {
    draws.push_back(sampling_row(plan.rows[sampling[static_cast<std::size_t>(i)].row]));
  }
}

SamplingRow StepInputs::sampling_row(const PlannedRows& rows) {
  const Generation& generation = *rows.generation;
  const Sampling& how = generation.sampling;
  const auto place = [](const auto& values) { return static_cast<std::int32_t>(values.size()); };
  SamplingRow row;
  row.temperature = how.temperature;
  row.top_p = how.top_p;
  row.min_p = how.min_p;
  row.top_k = how.top_k;
  row.seed = how.seed;
  row.position = static_cast<std::uint64_t>(rows.draw);
  row.allowed_begin = place(mask_ids);
  for (const TokenId id : rows.rule.allowed) mask_ids.push_back(id.value());
  row.allowed_count = place(mask_ids) - row.allowed_begin;
  row.suppressed_begin = place(mask_ids);
  for (const TokenId id : rows.rule.suppressed) mask_ids.push_back(id.value());
  row.suppressed_count = place(mask_ids) - row.suppressed_begin;
  if (how.has_penalties()) {
    row.repetition_penalty = how.repetition_penalty;
    row.presence_penalty = how.presence_penalty;
    row.frequency_penalty = how.frequency_penalty;
    const Sequence& sequence = *generation.sequence;
    std::map<std::int32_t, std::int32_t> counts;
    for (int position = 1 + sequence.image_tokens(); position < sequence.length(); ++position) {
      const Token& token = sequence.token_at(position);
      if (token.kind != Token::Kind::kText || token.id == kNoToken) continue;
      counts[token.id.value()] += position >= sequence.prompt_len() ? 1 : 0;
    }
    row.seen_begin = place(seen);
    for (const auto& [id, count] : counts) seen.push_back({id, count});
    row.seen_count = place(seen) - row.seen_begin;
  }
  row.bias_begin = place(biases);
  for (const auto& [id, bias] : how.logit_bias) biases.push_back({id.value(), bias});
  row.bias_count = place(biases) - row.bias_begin;
  row.num_top = std::max(0, how.num_top_logprobs);
  wants_top = wants_top || row.num_top > 0;
  return row;
}

}  // namespace fovea
