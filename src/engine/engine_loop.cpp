#include "engine/engine_loop.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <limits>
#include <mutex>

#include "base/check.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/guard.h"
#include "base/try.h"

namespace fovea {
namespace {

constexpr double kPriorityStepMs = 1000;
constexpr double kCostMemory = 0.9;  // of the old estimate, when a new measurement comes in

void learn(double& estimate, double measured) {
  estimate = estimate == 0 ? measured : kCostMemory * estimate + (1 - kCostMemory) * measured;
}

Error cancelled() noexcept { return say(ErrorCode::kCancelled, "the caller stopped the request"); }

}  // namespace

/// A request inside the engine.
struct EngineLoop::Active {
  std::uint64_t id = 0;
  Request request;
  std::shared_ptr<const Callbacks> callbacks;
  std::unique_ptr<SkillState> skill;
  Prompt prompt;  // until the sequence is made of it
  Generation generation;
  Response response;
  std::unique_ptr<Delivery::Message> last_message;  // ready from the beginning

  AdapterUse adapter;
  std::vector<TokenId> suppressed;  // of the next token, when the rule's own are not all
  std::optional<RuleAhead> guess;   // that a row in flight runs ahead on

  // On now_ms()'s clock; 0 = not yet.
  double submitted_ms = 0, admitted_ms = 0, first_token_ms = 0, last_token_ms = 0;

  double place_ms() const { return submitted_ms - request.priority * kPriorityStepMs; }
};

EngineLoop::EngineLoop(StepRunner& runner, PageAllocator& pages, const ModelFacts& model,
                       SkillFactory skills, const LoopOptions& options, AdapterStore* adapters)
    : runner_(runner),
      pages_(pages),
      model_(model),
      skills_(std::move(skills)),
      options_(options),
      cache_(pages, model.page_size),
      adapters_(adapters, inbox_, metrics_,
                {.failed = [this](const AdapterEntry& adapter,
                                  const Error& failure) { fail_all_with(adapter, failure); },
                 .forgotten = [this](std::int32_t id) { cache_.drop(id); }}),
      scheduler_(options.scheduler, pages, cache_, adapters_.residency()),
      delivery_(options.log, [this](std::uint64_t id) { cancel(id); }) {
  pictures_.emplace(
      runner, scheduler_, cache_, inbox_, metrics_,
      PicturePipeline::Options{
          .limits = options.picture_limits,
          .crops = model.crops,
          .bos = model.bos,
          .image_tokens = model.image_tokens,
          .max_in_preparation = options.scheduler.max_sequences + 2 * PicturePipeline::kNumWorkers,
          .num_threads = options.picture_threads,
          .cache_bytes = options.image_cache_bytes,
          .store = options.image_store},
      PicturePipeline::Events{
          .ready = [this](std::uint64_t id, const ReadyPicture& picture) { line_up(id, picture); },
          .failed = [this](std::uint64_t id,
                           const Error& failure) { fail(id, copy_of(failure)); }});
  left_.reserve(static_cast<std::size_t>(options.scheduler.max_sequences));
  in_flight_.reserve(static_cast<std::size_t>(runner.depth()));
  update_gauges();
  thread_ = std::thread([this] { run(); });
}

EngineLoop::~EngineLoop() {
  inbox_.close();
  thread_.join();
  pictures_.reset();  // what the workers still send is never run
}

// ---- callers' threads

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

// ---- the engine thread

void EngineLoop::run() {
  while (drain_inbox()) step();
  drain_inbox();  // what came in before the end was announced
  while (!in_flight_.empty()) collect();
  while (!requests_.empty()) fail(requests_.begin()->first, cancelled());
}

// Runs what others asked for; waits for it when there is nothing else to do. False at the end.
bool EngineLoop::drain_inbox() {
  const bool may_plan = scheduler_.num_running() + scheduler_.num_waiting() > 0 ||
                        scheduler_.num_queued_crops() > 0 || !in_flight_.empty();
  if (!may_plan || idle_) {
    // A step that found nothing to do is worth repeating when a vision batch has waited enough or a
    // deadline passes; everything else comes through the inbox.
    double wakeup_ms = scheduler_.next_wakeup_ms();
    if (!deadlines_.empty()) wakeup_ms = std::min(wakeup_ms, deadlines_.begin()->first);
    inbox_.wait(wakeup_ms);
  }
  // Tasks keep their faults with the requests they are for; what comes out of one concerns nobody.
  while (const Inbox::LetterPtr letter = inbox_.take()) (void)guarded(letter->task);
  return !inbox_.is_closed();
}

void EngineLoop::step() {
  expire(now_ms());
  pictures_->start();
  idle_ = true;
  if (in_flight_.size() < static_cast<std::size_t>(runner_.depth())) plan_and_launch();
  if (!in_flight_.empty() &&
      (idle_ || in_flight_.size() >= static_cast<std::size_t>(runner_.depth()))) {
    idle_ = false;
    collect();
  }
  adapters_.advance();
  update_gauges();
}

void EngineLoop::plan_and_launch() {
  Result<StepPlan> planned = guarded<StepPlan>([&]() -> Result<StepPlan> {
    return scheduler_.plan(now_ms(), costs_, pictures_->is_preparing());
  });
  if (!planned.ok()) {
    // Not even a plan can be written down: the newest request gives back what it has.
    if (!requests_.empty()) fail(requests_.rbegin()->first, copy_of(planned.error()));
    idle_ = false;
    return;
  }
  for (Generation* generation : scheduler_.failed()) {
    fail(static_cast<std::uint64_t>(generation->order), out_of_memory());
    idle_ = false;
  }
  for (Generation* generation : scheduler_.take_hopeless()) {
    fail(static_cast<std::uint64_t>(generation->order),
         say(ErrorCode::kDeadlineExceeded, "the deadline cannot be met any more"));
  }
  for (Generation* generation : scheduler_.take_homeless()) {
    // Its picture was cached when it was lined up, and evicted before its turn.
    pictures_->find_again(static_cast<std::uint64_t>(generation->order));
    idle_ = false;
  }
  if (planned->empty()) return;
  idle_ = false;
  note_admissions(*planned);
  launch(std::move(*planned));
}

EngineLoop::Active& EngineLoop::active_of(const Generation& generation) {
  return *requests_.at(static_cast<std::uint64_t>(generation.order));
}

void EngineLoop::start(Requests::node_type entry) noexcept {
  Active& a = *entry.mapped();
  requests_.insert(std::move(entry));
  const Status started = guarded([&] {
    if (a.generation.deadline_ms > 0) deadlines_.emplace(a.generation.deadline_ms, a.id);
    if (a.request.picture) {
      pictures_->add(a.id, a.place_ms(), a.request, a.adapter.id());
    } else {
      line_up(a.id, {});
    }
  });
  if (!started.ok()) fail(a.id, copy_of(started.error()));
}

// The request can run: its picture, if it has one, is encoded or cached.
void EngineLoop::line_up(std::uint64_t id, const ReadyPicture& picture) {
  Active& active = *requests_.at(id);
  active.response.usage.picture_ms = picture.picture_ms;
  active.response.usage.vision_ms = picture.vision_ms;
  active.last_message->record.image_cached = picture.was_cached;
  Generation& generation = active.generation;
  if (!generation.sequence) {
    if (active.request.picture) active.prompt.picture = picture.identity;
    generation.sequence.emplace(pages_, cache_, model_.page_size, std::move(active.prompt));
  }
  generation.sequence->set_image(picture.image);
  scheduler_.add(generation);
}

void EngineLoop::note_admissions(const StepPlan& plan) {
  for (const PlannedRows& rows : plan.rows) {
    Active& active = active_of(*rows.generation);
    if (active.admitted_ms > 0) continue;
    active.admitted_ms = now_ms();
    active.response.usage.cached_tokens = rows.generation->cached_tokens;
    metrics_.prefix_cache_queries.add(
        static_cast<std::uint64_t>(active.response.usage.prompt_tokens));
    metrics_.prefix_cache_hits.add(static_cast<std::uint64_t>(rows.generation->cached_tokens));
    pictures_->admitted(active.id);
  }
}

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

// A step that cannot be launched is tried once more, row by row, so that only whoever it fails for
// again ends. A device that is lost stays lost.
void EngineLoop::launch(StepPlan plan) {
  const Status status = try_launch(plan);
  if (status.ok()) {
    in_flight_.push_back(std::move(plan));
    return;
  }
  if (status.error().code == ErrorCode::kDeviceLost) return fail_step(plan, status.error());
  while (!in_flight_.empty()) collect();  // now every token is known
  const auto alone = [&](StepPlan& part) {
    const Status again = try_launch(part);
    if (!again.ok()) return fail_step(part, again.error());
    in_flight_.push_back(std::move(part));
    collect();
  };
  const Status split = guarded([&] {
    StepPlan copies, crops;
    copies.copies = std::move(plan.copies);
    if (!copies.copies.empty()) alone(copies);
    crops.crops = std::move(plan.crops);
    crops.num_crops = plan.num_crops;
    if (!crops.crops.empty()) alone(crops);
  });
  if (!split.ok()) return fail_step(plan, split.error());
  for (PlannedRows& rows : plan.rows) {
    rows.feeds_back = false;
    rows.generation->guessed_wrong = false;
    if (!requests_.contains(rows.order)) {  // ended meanwhile
      scheduler_.withdraw(rows);
      leaving_.erase(rows.order);
      continue;
    }
    const Status tried = guarded([&] {
      StepPlan part;
      part.rows.push_back(rows);
      part.num_rows = rows.end - rows.begin;
      alone(part);
    });
    if (tried.ok()) continue;
    scheduler_.withdraw(rows);
    fail(rows.order, copy_of(tried.error()));
  }
}

Status EngineLoop::try_launch(StepPlan& plan) {
  const Status status = guarded([&] {
    for (PlannedRows& rows : plan.rows) {
      if (rows.samples) set_rule(rows);
    }
    return runner_.launch(plan);
  });
  if (status.ok()) ++num_steps_;
  return status;
}

void EngineLoop::collect() {
  StepPlan plan = std::move(in_flight_.front());
  in_flight_.erase(in_flight_.begin());
  const auto bring = [&] { return runner_.collect(); };
  Result<StepOutput> output = guarded<StepOutput>(bring);
  // There was no memory to hold it; the step itself is not lost.
  if (!output.ok() && output.error().code == ErrorCode::kResourceExhausted) {
    output = guarded<StepOutput>(bring);
  }
  if (!output.ok()) return fail_step(plan, output.error());
  note_step(plan, *output);
  for (PlannedRows& rows : plan.rows) {
    rows.is_void = rows.feeds_back && rows.generation->guessed_wrong;
  }
  scheduler_.commit(plan, left_);
  forget_left();
  const double done_ms = now_ms();
  pictures_->encoded(plan, done_ms);
  std::size_t next = 0;
  for (const PlannedRows& rows : plan.rows) {
    if (!rows.samples) continue;
    const SampledToken& sampled = output->tokens[next++];
    // Whoever left while the step ran does not hear of it.
    const auto found = requests_.find(rows.order);
    if (found == requests_.end() || rows.is_void) continue;
    Active& active = *found->second;
    const Status status = guarded([&] { take_token(active, sampled, done_ms); });
    if (!status.ok()) fail(rows.order, copy_of(status.error()));
  }
}

void EngineLoop::note_step(const StepPlan& plan, const StepOutput& output) {
  if (plan.num_rows > 0) {
    metrics_.step_rows.observe(plan.num_rows);
    metrics_.step_sequences.observe(static_cast<double>(plan.rows.size()));
  }
  if (plan.num_crops > 0) {
    metrics_.step_crops.observe(plan.num_crops);
    learn(costs_.crop_ms, output.vision_ms / plan.num_crops);
  }
  if (plan.num_prefill_rows > plan.num_rows / 2) {
    learn(costs_.row_ms, output.text_ms / plan.num_rows);
  }
  for (const PlannedCrops& crops : plan.crops) num_crops_ += crops.count;
}

// Requests that had ended before the step came back.
void EngineLoop::forget_left() noexcept {
  for (const Generation* generation : left_) {
    leaving_.erase(static_cast<std::uint64_t>(generation->order));
  }
  left_.clear();
}

// Nothing of the step came back: whoever was in it ends, everybody else goes on.
void EngineLoop::fail_step(const StepPlan& plan, const Error& failure) noexcept {
  scheduler_.abandon(plan, left_);
  forget_left();
  pictures_->encoding_failed(plan, failure);
  for (const PlannedRows& rows : plan.rows) fail(rows.order, copy_of(failure));
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
  costs_.learn_service(done_ms - active.admitted_ms);
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
  delivery_.send(std::move(message));
  if (!scheduler_.remove(active.generation)) leaving_.insert(std::move(entry));
  --num_inside_;
}

void EngineLoop::expire(double at_ms) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= at_ms) {
    fail(deadlines_.begin()->second, say(ErrorCode::kDeadlineExceeded, "the deadline has passed"));
  }
}

void EngineLoop::update_gauges() {
  metrics_.requests_running.set(scheduler_.num_running());
  metrics_.requests_waiting.set(static_cast<std::int64_t>(requests_.size()) -
                                scheduler_.num_running());
  metrics_.kv_pages.set(pages_.num_pages());
  metrics_.kv_pages_used.set(pages_.num_pages() - pages_.num_free());
  metrics_.image_cache_bytes.set(static_cast<std::int64_t>(pictures_->cache_bytes()));
  const std::int64_t preemptions = scheduler_.num_preemptions();
  metrics_.preemptions.add(
      static_cast<std::uint64_t>(preemptions - std::exchange(preemptions_counted_, preemptions)));
  service_ms_ = costs_.service_ms;
}

}  // namespace fovea
