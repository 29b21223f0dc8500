// What becomes of the tokens: from the rule for the next one to the answer, and the way out of the
// engine. Engine thread only.

#include <algorithm>

#include "base/clock.h"
#include "base/error.h"
#include "base/guard.h"
#include "engine/active_request.h"

namespace fovea {

// What the row may sample. One that runs ahead goes by the skill's guess at what comes before.
void EngineLoop::set_rule(PlannedRows& rows) {
  Active& active = active_of(*rows.generation);
  if (rows.feeds_back) {
    active.guess = active.skill->rule_ahead();
    rows.rule = active.guess->rule;
    rows.fed_kind = active.guess->next;
  } else {
    rows.rule = active.skill->next_rule();
    if (rows.draw == 0 && !options_.mask_first_token) rows.rule.suppressed = {};
  }
  if (active.request.sampling.ignore_eos) {
    active.suppressed.assign(rows.rule.suppressed.begin(), rows.rule.suppressed.end());
    active.suppressed.push_back(model_.eos);
    rows.rule.suppressed = active.suppressed;
  }
  update_run_ahead(active);
}

void EngineLoop::update_run_ahead(Active& active) const {
  // Penalties count the words of the answer, of which the next one is still unknown.
  active.generation.may_run_ahead = runner_.depth() > 1 &&
                                    !active.generation.sampling.has_penalties() &&
                                    active.skill->rule_ahead().has_value();
}

// The token that a step in flight was launched over has come: was it what the skill guessed?
void EngineLoop::check_guess(Active& active, const Token& token) {
  if (!active.guess) return;
  const RuleAhead guess = *std::exchange(active.guess, std::nullopt);
  const TokenRule rule = active.skill->next_rule();
  active.generation.guessed_wrong = guess.next != token.kind || guess.rule.slot != rule.slot ||
                                    !std::ranges::equal(guess.rule.allowed, rule.allowed) ||
                                    !std::ranges::equal(guess.rule.suppressed, rule.suppressed);
}

void EngineLoop::take_token(Active& active, const SampledToken& sampled, double done_ms) {
  Usage& usage = active.response.usage;
  if (usage.completion_tokens == 0) {
    active.first_token_ms = done_ms;
    usage.prefill_ms = done_ms - active.admitted_ms;
    usage.ttft_ms = done_ms - active.submitted_ms;
    usage.queue_ms =
        std::max(0.0, usage.ttft_ms - usage.prefill_ms - usage.vision_ms - usage.picture_ms);
  }
  if (usage.completion_tokens > 0) {
    metrics_.inter_token_latency.observe((done_ms - active.last_token_ms) / 1000);
  }
  active.last_token_ms = done_ms;
  ++usage.completion_tokens;
  const TokenId id = sampled.token.id;
  if (id != model_.eos && id != kNoToken) {
    active.response.token_ids.push_back(id.value());
    if (active.request.sampling.top_logprobs) {
      TokenLogprob logprob{id.value(), sampled.logprob, {}};
      for (const auto& [rival, value] : sampled.top) logprob.top.emplace_back(rival.value(), value);
      active.response.logprobs.push_back(std::move(logprob));
    }
  }
  const Progress progress = active.skill->consume(sampled);
  if (active.callbacks->on_text) deliver_text(active);
  if (progress != Progress::kContinue) return complete(active, progress);
  active.generation.sequence->append(sampled.token);
  check_guess(active, sampled.token);
  update_run_ahead(active);
  if (usage.completion_tokens >= active.generation.max_new_tokens) {
    complete(active, Progress::kLength);
  }
}

void EngineLoop::complete(Active& active, Progress progress) {
  const double done_ms = now_ms();
  active.skill->finish(active.response);
  if (active.callbacks->on_text) deliver_text(active);
  active.response.finish_reason =
      progress == Progress::kStop ? FinishReason::kStop : FinishReason::kLength;
  active.response.usage.decode_ms = done_ms - active.first_token_ms;
  active.response.usage.total_ms = done_ms - active.submitted_ms;
  costs_.service.learn(done_ms - active.admitted_ms);
  if (active.picture_since_ms > 0) {
    costs_.pictured_service.learn(done_ms - active.picture_since_ms);
  }
  if (active.encoding_since_ms > 0) {
    costs_.encoded_service.learn(done_ms - active.encoding_since_ms);
  }
  finish(active, std::move(active.response));
}

void EngineLoop::deliver_text(Active& active) {
  std::string text = active.skill->take_text();
  if (text.empty()) return;
  auto message = std::make_unique<Delivery::Message>();
  message->id = active.id;
  message->callbacks = active.callbacks;
  message->text = std::move(text);
  delivery_.send(std::move(message));
}

void EngineLoop::fail(std::uint64_t id, Error failure) noexcept {
  if (const auto found = requests_.find(id); found != requests_.end()) {
    finish(*found->second, std::move(failure));
  }
}

void EngineLoop::fail_all_with(const AdapterEntry& adapter, const Error& failure) noexcept {
  for (auto request = requests_.begin(); request != requests_.end();) {
    Active& active = *(request++)->second;
    if (active.adapter.entry().get() == &adapter) finish(active, copy_of(failure));
  }
}

// What has been started and is late says something of how long it takes.
void EngineLoop::learn_from_late(const Active& active) noexcept {
  const double ended_ms = now_ms();
  if (active.admitted_ms > 0) costs_.service.learn_broken_off(ended_ms - active.admitted_ms);
  if (active.picture_since_ms > 0) {
    costs_.pictured_service.learn_broken_off(ended_ms - active.picture_since_ms);
  }
  if (active.encoding_since_ms > 0) {
    costs_.encoded_service.learn_broken_off(ended_ms - active.encoding_since_ms);
  }
}

// The one way out. Gives back everything that the request holds, tells the caller, and forgets it;
// what a step in flight still writes to follows when that step has come back. Takes no memory: it
// is the way out for whoever has run out of it.
void EngineLoop::finish(Active& active, Result<Response> result) noexcept {
  const std::uint64_t id = active.id;
  deadlines_.erase({active.generation.deadline_ms, id});
  pictures_->remove(id);
  if (result.ok()) {
    metrics_.count_answer(active.request.skill, *result);
  } else {
    metrics_.count_error(active.request.skill, result.error().code);
    if (result.error().code == ErrorCode::kDeadlineExceeded) learn_from_late(active);
  }
  Requests::node_type entry = requests_.extract(id);
  {
    const std::lock_guard lock(cancels_mutex_);
    cancels_.erase(id);
  }
  std::unique_ptr<Delivery::Message> message = std::move(active.last_message);
  message->record.usage = active.response.usage;
  message->record.usage.total_ms = now_ms() - active.submitted_ms;
  message->answer.emplace(std::move(result));
  if (!scheduler_.remove(active.generation)) leaving_.insert(std::move(entry));
  --num_inside_;  // before the caller hears of it and comes with the next one
  delivery_.send(std::move(message));
}

void EngineLoop::expire(double at_ms) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= at_ms) {
    fail(deadlines_.begin()->second, say(ErrorCode::kDeadlineExceeded, "the deadline has passed"));
  }
}

}  // namespace fovea
