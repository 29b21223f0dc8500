// What the engine's loop does on the threads of its callers.

#include <cmath>
#include <condition_variable>
#include <mutex>

#include "base/clock.h"
#include "base/error.h"
#include "base/guard.h"
#include "base/try.h"
#include "engine/active_request.h"

namespace fovea {

Result<std::uint64_t> EngineLoop::submit(Request request, Callbacks callbacks) {
  return guarded<std::uint64_t>([&] { return line_up_at_door(request, callbacks); });
}

Result<std::uint64_t> EngineLoop::line_up_at_door(Request& request, Callbacks& callbacks) {
  Result<Validated> validated = validate(request);
  if (!validated.ok()) {
    metrics_.count_rejection(Rejection::kInvalid);
    return std::move(validated).error();
  }
  auto& [skill, adapter] = *validated;
  const int image_tokens = request.picture ? model_.image_tokens : 0;
  const int prompt_len = 1 + image_tokens + static_cast<int>(skill->prompt().size());
  const int left =
      std::min(model_.max_context, scheduler_.max_positions(model_.page_size)) - prompt_len;
  const int wanted = skill->max_new_tokens();
  // A budget that the caller named must fit behind the prompt; a default one is cut to what is
  // left.
  if (left < 1 || (request.sampling.max_tokens && wanted > left)) {
    metrics_.count_rejection(Rejection::kTooLarge);
    return error(ErrorCode::kResourceExhausted,
                 "the prompt takes {} positions and the answer up to {}; the context holds {}",
                 prompt_len, wanted, left + prompt_len);
  }
  const int inside = num_inside_.fetch_add(1);
  Place place{&num_inside_};  // given back unless the request gets in
  if (inside >= options_.max_queue) {
    metrics_.count_rejection(Rejection::kQueueFull);
    const double busy_s = service_ms_ / 1000 * inside / options_.scheduler.max_sequences;
    return error(ErrorCode::kOverloaded,
                 "{} requests are in the engine already (max_queue {}); try again in {} s", inside,
                 options_.max_queue, static_cast<int>(std::ceil(std::max(1.0, busy_s))));
  }
  auto owner = std::make_shared<std::unique_ptr<Active>>(std::make_unique<Active>());
  Active& a = **owner;
  a.id = next_id_.fetch_add(1);
  a.request = std::move(request);
  a.callbacks = std::make_shared<const Callbacks>(std::move(callbacks));
  a.skill = std::move(skill);
  a.adapter = std::move(adapter);
  a.submitted_ms = now_ms();
  a.response.usage.prompt_tokens = prompt_len;
  a.response.finish_reason = FinishReason::kLength;
  a.prompt = {.bos = model_.bos,
              .picture = {},  // known when it has been decoded
              .image_tokens = image_tokens,
              .tokens = a.skill->prompt(),
              .adapter = a.adapter.id()};
  Generation& generation = a.generation;
  generation.adapter = a.adapter.entry();
  generation.sampling = resolve_sampling(a.request);
  generation.order = static_cast<std::int64_t>(a.id);
  generation.place_ms = a.place_ms();
  generation.deadline_ms = a.request.deadline_ms ? a.submitted_ms + *a.request.deadline_ms : 0;
  generation.max_new_tokens = std::min(wanted, left);
  a.last_message = std::make_unique<Delivery::Message>();
  Delivery::Message& message = *a.last_message;
  message.id = a.id;
  message.callbacks = a.callbacks;
  message.record.received = std::chrono::system_clock::now();
  message.record.skill = skill_name(a.request.skill);
  message.record.adapter = a.request.adapter;
  message.record.request_id = a.request.request_id;
  // All that its end will need is made here, where there being no memory for it is the caller's to
  // hear: the place among the requests, the last message, the letter that cancels it.
  const std::uint64_t id = a.id;
  Requests alone;
  alone.emplace(id, std::move(*owner));
  const auto entry = std::make_shared<Requests::node_type>(alone.extract(id));
  const auto start_letter =
      std::make_shared<Inbox::Letter>([this, entry] { start(std::move(*entry)); });
  const auto cancel_letter = std::make_shared<Inbox::Letter>([this, id] { fail(id, cancelled()); });
  {
    const std::lock_guard lock(cancels_mutex_);
    cancels_.emplace(id, cancel_letter);
  }
  place.inside = nullptr;
  inbox_.send(start_letter);
  return id;
}

Result<EngineLoop::Validated> EngineLoop::validate(const Request& request) const {
  Validated validated;
  FOVEA_TRY(validated.adapter, adapters_.find(request.adapter));
  for (const auto& [id, bias] : request.sampling.logit_bias) {
    if (id < 0 || id >= model_.vocab_size) {
      return invalid_argument("logit_bias: id {} must lie in 0..{}", id, model_.vocab_size - 1);
    }
  }
  FOVEA_TRY(validated.skill, skills_(request));
  return validated;
}

void EngineLoop::cancel(std::uint64_t id) noexcept {
  Inbox::LetterPtr letter;
  {
    const std::lock_guard lock(cancels_mutex_);
    if (const auto found = cancels_.find(id); found != cancels_.end()) {
      letter = std::move(found->second);
      cancels_.erase(found);
    }
  }
  if (letter != nullptr) inbox_.send(std::move(letter));
}

void EngineLoop::drop_caches() {
  std::mutex mutex;
  std::condition_variable done;
  bool is_done = false;
  inbox_.post([&] {
    while (!in_flight_.empty()) collect();  // requests that have ended may still be in there
    cache_.clear();
    pictures_->clear_cache();
    update_gauges();
    const std::lock_guard lock(mutex);
    is_done = true;
    done.notify_one();
  });
  std::unique_lock lock(mutex);
  done.wait(lock, [&] { return is_done; });
}

EngineStats EngineLoop::stats() const {
  EngineStats stats;
  const auto signed_of = [](std::uint64_t value) { return static_cast<std::int64_t>(value); };
  stats.num_running = static_cast<int>(metrics_.requests_running.value());
  stats.num_waiting = static_cast<int>(metrics_.requests_waiting.value());
  stats.pages_total = static_cast<int>(metrics_.kv_pages.value());
  stats.pages_free = stats.pages_total - static_cast<int>(metrics_.kv_pages_used.value());
  stats.image_cache_bytes = static_cast<std::size_t>(metrics_.image_cache_bytes.value());
  for (const auto& by_outcome : metrics_.requests) {
    stats.num_finished += signed_of(by_outcome[0].value());
    for (std::size_t code = 0; code + 1 < by_outcome.size(); ++code) {
      (code == static_cast<std::size_t>(ErrorCode::kCancelled) ? stats.num_cancelled
                                                               : stats.num_failed) +=
          signed_of(by_outcome[1 + code].value());
    }
  }
  stats.num_steps = num_steps_;
  stats.num_preemptions = signed_of(metrics_.preemptions.value());
  stats.prompt_tokens = signed_of(metrics_.prefix_cache_queries.value());
  stats.cached_tokens = signed_of(metrics_.prefix_cache_hits.value());
  stats.generated_tokens = signed_of(metrics_.generation_tokens.value());
  stats.num_crops = num_crops_;
  stats.num_image_hits = signed_of(metrics_.image_cache_hits.value());
  stats.num_image_misses = signed_of(metrics_.image_cache_misses.value());
  return stats;
}

}  // namespace fovea
