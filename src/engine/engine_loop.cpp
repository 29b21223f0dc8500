#include "engine/engine_loop.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <limits>
#include <new>

#include "base/check.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/try.h"

namespace fovea {
namespace {

constexpr double kPriorityStepMs = 1000;
constexpr double kCostMemory = 0.9;  // of the old estimate, when a new measurement comes in
constexpr int kPictureWorkers = 2;

// The skills' defaults: words are drawn a little warm, coordinates greedily.
Sampling resolve_sampling(const Request& request) {
  const bool words = std::holds_alternative<CaptionRequest>(request.skill) ||
                     std::holds_alternative<QueryRequest>(request.skill);
  const SamplingParams& params = request.sampling;
  Sampling sampling;
  sampling.temperature = params.temperature.value_or(words ? 0.2f : 0.0f);
  sampling.top_p = params.top_p.value_or(words ? 0.9f : 1.0f);
  sampling.top_k = params.top_k.value_or(0);
  sampling.min_p = params.min_p.value_or(0.0f);
  sampling.seed = params.seed;
  sampling.repetition_penalty = params.repetition_penalty;
  sampling.presence_penalty = params.presence_penalty;
  sampling.frequency_penalty = params.frequency_penalty;
  const std::map<std::int32_t, float> biases(params.logit_bias.begin(), params.logit_bias.end());
  for (const auto& [id, bias] : biases) sampling.logit_bias.emplace_back(id, bias);
  sampling.num_top_logprobs = params.top_logprobs.value_or(-1);
  return sampling;
}

void learn(double& estimate, double measured) {
  estimate = estimate == 0 ? measured : kCostMemory * estimate + (1 - kCostMemory) * measured;
}

// Runs what may throw (memory that is not there, a library) and makes an error of it.
template <class T, class Body>
Result<T> guarded(Body&& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return error(ErrorCode::kResourceExhausted, "out of memory");
  } catch (const std::exception& exception) {
    return error(ErrorCode::kInternal, "{}", exception.what());
  }
}

Error cancelled() { return error(ErrorCode::kCancelled, "the caller stopped the request"); }

}  // namespace

/// A request inside the engine.
struct EngineLoop::Active {
  std::uint64_t id = 0;
  Request request;
  Callbacks callbacks;
  std::unique_ptr<SkillState> skill;
  Prompt prompt;  // until the sequence is made of it
  Generation generation;
  Response response;

  std::int32_t adapter = kNoAdapter;
  std::vector<TokenId> suppressed;  // of the next token, when the rule's own are not all
  bool in_preparation = false;      // counts in num_in_preparation_
  std::shared_ptr<const Image> pixels;
  ImageIdentity identity{};
  bool image_cached = false;
  bool waits_for_picture = false;  // listed in pictures_

  std::chrono::system_clock::time_point received = std::chrono::system_clock::now();
  // On now_ms()'s clock; 0 = not yet.
  double submitted_ms = 0, lined_up_ms = 0, admitted_ms = 0, first_token_ms = 0, last_token_ms = 0;

  double place_ms() const { return submitted_ms - request.priority * kPriorityStepMs; }
};

/// A picture between its identification and its embeddings, and who waits for it.
struct EngineLoop::PictureInWork {
  std::shared_ptr<PictureJob> job;  // null while it is being cut up
  double cut_ms = 0;
  std::vector<std::uint64_t> waiting;
};

EngineLoop::EngineLoop(StepRunner& runner, PageAllocator& pages, const ModelFacts& model,
                       SkillFactory skills, const LoopOptions& options)
    : runner_(runner),
      pages_(pages),
      model_(model),
      skills_(std::move(skills)),
      options_(options),
      cache_(pages, model.page_size),
      images_(options.image_cache_bytes),
      scheduler_(options.scheduler, pages, cache_),
      identifier_(options.picture_limits, model.crops),
      picture_pool_(options.picture_threads),
      delivery_(std::make_unique<TaskQueue>(1)),
      picture_workers_(std::make_unique<TaskQueue>(kPictureWorkers)) {
  update_gauges();
  thread_ = std::thread([this] { run(); });
}

EngineLoop::~EngineLoop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
  picture_workers_.reset();  // what they post is never run
  delivery_.reset();         // everybody has been told
  inbox_.clear();
  requests_.clear();
  leaving_.clear();
}

// ---- callers' threads

Result<std::uint64_t> EngineLoop::submit(Request request, Callbacks callbacks) {
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
  if (inside >= options_.max_queue) {
    --num_inside_;
    metrics_.count_rejection(Rejection::kQueueFull);
    const double busy_s = service_ms_ / 1000 * inside / options_.scheduler.max_sequences;
    return error(ErrorCode::kOverloaded,
                 "{} requests are in the engine already (max_queue {}); try again in {} s", inside,
                 options_.max_queue, static_cast<int>(std::ceil(std::max(1.0, busy_s))));
  }
  auto active = std::make_shared<std::unique_ptr<Active>>(std::make_unique<Active>());
  Active& a = **active;
  a.id = next_id_.fetch_add(1);
  a.request = std::move(request);
  a.callbacks = std::move(callbacks);
  a.skill = std::move(skill);
  a.adapter = adapter;
  a.submitted_ms = now_ms();
  a.response.usage.prompt_tokens = prompt_len;
  a.response.finish_reason = FinishReason::kLength;
  a.prompt = {.bos = model_.bos,
              .picture = {},  // known when it has been decoded
              .image_tokens = image_tokens,
              .tokens = a.skill->prompt(),
              .adapter = adapter};
  Generation& generation = a.generation;
  generation.sampling = resolve_sampling(a.request);
  generation.order = static_cast<std::int64_t>(a.id);
  generation.place_ms = a.place_ms();
  generation.deadline_ms = a.request.deadline_ms ? a.submitted_ms + *a.request.deadline_ms : 0;
  generation.max_new_tokens = std::min(wanted, left);
  const std::uint64_t id = a.id;
  post([this, active] { start(std::move(*active)); });
  return id;
}

Result<EngineLoop::Validated> EngineLoop::validate(const Request& request) const {
  Validated validated;
  if (!request.adapter.empty()) {
    const auto found = std::ranges::find(options_.adapters, request.adapter);
    if (found == options_.adapters.end()) {
      return error(ErrorCode::kNotFound, "there is no adapter named {}", request.adapter);
    }
    validated.adapter = static_cast<std::int32_t>(found - options_.adapters.begin());
  }
  for (const auto& [id, bias] : request.sampling.logit_bias) {
    if (id < 0 || id >= model_.vocab_size) {
      return invalid_argument("logit_bias: id {} must lie in 0..{}", id, model_.vocab_size - 1);
    }
  }
  FOVEA_TRY(validated.skill, skills_(request));
  return validated;
}

void EngineLoop::cancel(std::uint64_t id) {
  post([this, id] {
    if (const auto found = requests_.find(id); found != requests_.end()) {
      finish(*found->second, cancelled());
    }
  });
}

void EngineLoop::drop_caches() {
  std::mutex mutex;
  std::condition_variable done;
  bool is_done = false;
  post([&] {
    cache_.evict(std::numeric_limits<int>::max());
    images_.clear();
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

void EngineLoop::post(Deferred task) {
  {
    const std::lock_guard lock(mutex_);
    inbox_.push_back(std::move(task));
  }
  wake_.notify_one();
}

// ---- the engine thread

void EngineLoop::run() {
  while (drain_inbox()) step();
  drain_inbox();  // what came in before the end was announced
  while (!in_flight_.empty()) collect();
  while (!requests_.empty()) finish(*requests_.begin()->second, cancelled());
}

// Runs what others asked for; waits for it when there is nothing else to do. False at the end.
bool EngineLoop::drain_inbox() {
  std::deque<Deferred> tasks;
  {
    std::unique_lock lock(mutex_);
    const auto something = [this] { return stopping_ || !inbox_.empty(); };
    const bool may_plan = scheduler_.num_running() + scheduler_.num_waiting() > 0 ||
                          scheduler_.num_queued_crops() > 0 || !in_flight_.empty();
    if (!may_plan || idle_) {
      // A step that found nothing to do is worth repeating when a vision batch has waited enough or
      // a deadline passes; everything else comes through the inbox.
      double wakeup_ms = scheduler_.next_wakeup_ms();
      if (!deadlines_.empty()) wakeup_ms = std::min(wakeup_ms, deadlines_.begin()->first);
      if (std::isinf(wakeup_ms)) {
        wake_.wait(lock, something);
      } else {
        wake_.wait_for(
            lock, std::chrono::duration<double, std::milli>(std::max(0.0, wakeup_ms - now_ms())),
            something);
      }
    }
    tasks.swap(inbox_);
  }
  for (Deferred& task : tasks) task();
  const std::lock_guard lock(mutex_);
  return !stopping_;
}

void EngineLoop::step() {
  expire(now_ms());
  start_pictures();
  idle_ = true;
  if (static_cast<int>(in_flight_.size()) < runner_.depth()) {
    const double planned_ms = now_ms();
    StepPlan plan = scheduler_.plan(planned_ms, costs_, num_in_preparation_ > 0);
    for (Generation* generation : scheduler_.take_hopeless()) {
      finish(active_of(*generation),
             error(ErrorCode::kDeadlineExceeded, "the deadline cannot be met any more"));
    }
    for (Generation* generation : scheduler_.take_homeless()) {
      // Its picture was cached when it was lined up, and evicted before its turn.
      find_or_encode(active_of(*generation));
      idle_ = false;
    }
    if (!plan.empty()) {
      idle_ = false;
      note_admissions(plan);
      launch(std::move(plan));
    }
  }
  if (!in_flight_.empty() && (idle_ || static_cast<int>(in_flight_.size()) >= runner_.depth())) {
    idle_ = false;
    collect();
  }
  update_gauges();
}

EngineLoop::Active& EngineLoop::active_of(const Generation& generation) {
  return *requests_.at(static_cast<std::uint64_t>(generation.order));
}

void EngineLoop::start(std::unique_ptr<Active> active) {
  Active& a = *active;
  requests_.emplace(a.id, std::move(active));
  if (a.generation.deadline_ms > 0) deadlines_.emplace(a.generation.deadline_ms, a.id);
  if (a.request.picture) {
    unprepared_.emplace(a.place_ms(), a.id);
  } else {
    line_up(a, nullptr);
  }
}

// Pictures are decoded a little ahead of the requests that run, and no further: pixels are large.
void EngineLoop::start_pictures() {
  const int limit = options_.scheduler.max_sequences + 2 * kPictureWorkers;
  while (num_in_preparation_ < limit && !unprepared_.empty()) {
    const std::uint64_t id = unprepared_.begin()->second;
    unprepared_.erase(unprepared_.begin());
    Active& active = *requests_.at(id);
    active.in_preparation = true;
    ++num_in_preparation_;
    picture_workers_->post(
        [this, id, picture = *active.request.picture, exif = active.request.apply_exif] {
          auto result = std::make_shared<Result<IdentifiedPicture>>(
              guarded<IdentifiedPicture>([&] { return identifier_.identify(picture, exif); }));
          post([this, id, result] { identified(id, std::move(*result)); });
        });
  }
}

void EngineLoop::identified(std::uint64_t id, Result<IdentifiedPicture> result) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;  // cancelled meanwhile
  Active& active = *found->second;
  if (!result.ok()) return finish(active, std::move(result).error());
  active.identity = result->identity;
  active.pixels = std::move(result->pixels);
  active.response.usage.picture_ms += result->worked_ms;
  active.prompt.picture = active.identity;
  find_or_encode(active);
}

// The picture's keys and values, its embeddings, somebody else's work on it, or our own: the first
// of these that there is.
void EngineLoop::find_or_encode(Active& active) {
  if (std::shared_ptr<const EncodedImage> image = images_.find(active.identity)) {
    metrics_.image_cache_hits.add();
    active.image_cached = true;
    return line_up(active, std::move(image));
  }
  const PrefixKey key = PrefixKey::of_picture(model_.bos, active.identity, model_.image_tokens);
  if (cache_.peek(active.adapter, {&key, 1}) == key.span) {
    active.image_cached = true;
    return line_up(active, nullptr);
  }
  metrics_.image_cache_misses.add();
  active.waits_for_picture = true;
  const auto [entry, is_new] = pictures_.try_emplace(active.identity);
  entry->second.waiting.push_back(active.id);
  if (is_new) {
    load_or_cut(active.identity, std::move(active.pixels), *active.request.picture,
                active.request.apply_exif, options_.image_store.has_value());
  }
  active.pixels.reset();
}

// On a picture worker: the embeddings from the disk, or the crops to make them of.
void EngineLoop::load_or_cut(const ImageIdentity& identity, std::shared_ptr<const Image> pixels,
                             Picture picture, bool apply_exif, bool try_store) {
  picture_workers_->post([this, identity, pixels = std::move(pixels), picture = std::move(picture),
                          apply_exif, try_store] {
    if (try_store) {
      if (std::optional<HostEmbeddings> stored = options_.image_store->load(identity)) {
        const auto embeddings = std::make_shared<const HostEmbeddings>(std::move(*stored));
        post([this, identity, embeddings, pixels, picture, apply_exif] {
          loaded(identity, *embeddings, [this, identity, pixels, picture, apply_exif] {
            load_or_cut(identity, pixels, picture, apply_exif, false);
          });
        });
        return;
      }
    }
    const double started_ms = now_ms();
    auto crops = std::make_shared<Result<Crops>>(guarded<Crops>([&]() -> Result<Crops> {
      std::shared_ptr<const Image> decoded = pixels;
      if (decoded == nullptr) {
        FOVEA_TRY(decoded, identifier_.pixels(picture, apply_exif));
      }
      return make_crops(*decoded, model_.crops, picture_pool_);
    }));
    const double worked_ms = now_ms() - started_ms;
    post([this, identity, crops, worked_ms] { cropped(identity, std::move(*crops), worked_ms); });
  });
}

void EngineLoop::loaded(const ImageIdentity& identity, const HostEmbeddings& embeddings,
                        const std::function<void()>& otherwise) {
  const auto found = pictures_.find(identity);
  if (found == pictures_.end()) return;
  const Result<std::shared_ptr<const EncodedImage>> image = runner_.upload(identity, embeddings);
  if (!image.ok()) return otherwise();
  for (const std::uint64_t id : found->second.waiting) requests_.at(id)->image_cached = true;
  image_is_ready(*image, 0);
}

void EngineLoop::cropped(const ImageIdentity& identity, Result<Crops> crops, double worked_ms) {
  const auto found = pictures_.find(identity);
  if (found == pictures_.end()) return;
  PictureInWork& picture = found->second;
  if (!crops.ok()) {
    const std::vector<std::uint64_t> waiting = std::move(picture.waiting);
    pictures_.erase(found);
    for (const std::uint64_t id : waiting) {
      requests_.at(id)->waits_for_picture = false;
      finish(*requests_.at(id), crops.error());
    }
    return;
  }
  if (picture.waiting.empty()) {  // all of them were cancelled
    pictures_.erase(found);
    return;
  }
  for (const std::uint64_t id : picture.waiting) {
    requests_.at(id)->response.usage.picture_ms += worked_ms;
  }
  picture.job = std::make_shared<PictureJob>();
  picture.job->identity = identity;
  picture.job->crops = std::move(crops).value();
  picture.job->queued_ms = picture.cut_ms = now_ms();
  scheduler_.add_picture(picture.job);
}

void EngineLoop::pictures_done(const StepPlan& plan, double done_ms) {
  for (const PlannedCrops& crops : plan.crops) {
    num_crops_ += crops.count;
    const auto found = pictures_.find(crops.picture->identity);
    if (!crops.is_last || found == pictures_.end() || found->second.job != crops.picture) continue;
    image_is_ready(crops.picture->encoded, done_ms);
    metrics_.image_encodes.add();
    if (options_.image_store) store(crops.picture->encoded);
  }
}

void EngineLoop::store(const std::shared_ptr<const EncodedImage>& image) {
  Result<HostEmbeddings> copy = runner_.download(*image);
  if (!copy.ok()) return;
  const auto embeddings = std::make_shared<const HostEmbeddings>(std::move(copy).value());
  picture_workers_->post([this, identity = image->identity, embeddings] {
    // A folder that cannot be written costs time later, not the answer.
    (void)options_.image_store->save(identity, *embeddings);
  });
}

// Everybody who waits for the picture goes on. `done_ms` is 0 when it was not encoded just now.
void EngineLoop::image_is_ready(const std::shared_ptr<const EncodedImage>& image, double done_ms) {
  const auto found = pictures_.find(image->identity);
  const PictureInWork picture = std::move(found->second);
  pictures_.erase(found);
  images_.insert(image);
  for (const std::uint64_t id : picture.waiting) {
    Active& active = *requests_.at(id);
    active.waits_for_picture = false;
    if (done_ms > 0) active.response.usage.vision_ms = done_ms - picture.cut_ms;
    line_up(active, image);
  }
}

void EngineLoop::line_up(Active& active, std::shared_ptr<const EncodedImage> image) {
  active.pixels.reset();
  active.lined_up_ms = now_ms();
  Generation& generation = active.generation;
  if (!generation.sequence) {
    generation.sequence.emplace(pages_, cache_, model_.page_size, std::move(active.prompt));
  }
  generation.sequence->set_image(std::move(image));
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
    if (std::exchange(active.in_preparation, false)) --num_in_preparation_;
  }
}

void EngineLoop::launch(StepPlan plan) {
  for (PlannedRows& rows : plan.rows) {
    if (!rows.samples) continue;
    Active& active = active_of(*rows.generation);
    rows.rule = active.skill->next_rule();
    if (rows.draw == 0 && !options_.mask_first_token) rows.rule.suppressed = {};
    if (active.request.sampling.ignore_eos) {
      active.suppressed.assign(rows.rule.suppressed.begin(), rows.rule.suppressed.end());
      active.suppressed.push_back(model_.eos);
      rows.rule.suppressed = active.suppressed;
    }
  }
  Status status = guarded<void>([&] { return runner_.launch(plan); });
  if (!status.ok()) return fail_step(plan, status.error());
  in_flight_.push_back(std::move(plan));
  ++num_steps_;
}

void EngineLoop::collect() {
  const StepPlan plan = std::move(in_flight_.front());
  in_flight_.pop_front();
  Result<StepOutput> output = guarded<StepOutput>([&] { return runner_.collect(); });
  if (!output.ok()) return fail_step(plan, output.error());
  if (plan.num_rows > 0) {
    metrics_.step_rows.observe(plan.num_rows);
    metrics_.step_sequences.observe(static_cast<double>(plan.rows.size()));
  }
  if (plan.num_crops > 0) metrics_.step_crops.observe(plan.num_crops);
  if (plan.num_crops > 0) learn(costs_.crop_ms, output->vision_ms / plan.num_crops);
  if (plan.num_prefill_rows > plan.num_rows / 2) {
    learn(costs_.row_ms, output->text_ms / plan.num_rows);
  }
  std::vector<Generation*> left;
  scheduler_.commit(plan, left);
  for (Generation* generation : left) {
    leaving_.erase(static_cast<std::uint64_t>(generation->order));
  }
  const double done_ms = now_ms();
  pictures_done(plan, done_ms);
  std::size_t next = 0;
  for (const PlannedRows& rows : plan.rows) {
    if (!rows.samples) continue;
    const SampledToken& sampled = output->tokens[next++];
    // Whoever left while the step ran does not hear of it.
    const auto found = requests_.find(rows.order);
    if (found == requests_.end()) continue;
    Active& active = *found->second;
    const Status status = guarded<void>([&]() -> Status {
      take_token(active, sampled, done_ms);
      return {};
    });
    if (!status.ok()) finish(active, status.error());
  }
}

// Nothing of the step came back: whoever was in it ends, everybody else goes on.
void EngineLoop::fail_step(const StepPlan& plan, const Error& failure) {
  std::vector<Generation*> left;
  scheduler_.abandon(plan, left);
  std::vector<std::uint64_t> ids;
  for (const PlannedRows& rows : plan.rows) ids.push_back(rows.order);
  for (Generation* generation : left) {
    leaving_.erase(static_cast<std::uint64_t>(generation->order));
  }
  for (const PlannedCrops& crops : plan.crops) {
    const auto found = pictures_.find(crops.picture->identity);
    if (found == pictures_.end() || found->second.job != crops.picture) continue;
    scheduler_.drop_picture(*crops.picture);
    for (const std::uint64_t id : found->second.waiting) {
      requests_.at(id)->waits_for_picture = false;
      ids.push_back(id);
    }
    pictures_.erase(found);
  }
  for (const std::uint64_t id : ids) {
    if (const auto found = requests_.find(id); found != requests_.end()) {
      finish(*found->second, failure);
    }
  }
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
  if (active.callbacks.on_text) deliver_text(active);
  if (progress != Progress::kContinue) return complete(active, progress);
  active.generation.sequence->append(sampled.token);
  if (usage.completion_tokens >= active.generation.max_new_tokens) {
    complete(active, Progress::kLength);
  }
}

void EngineLoop::complete(Active& active, Progress progress) {
  const double done_ms = now_ms();
  active.skill->finish(active.response);
  if (active.callbacks.on_text) deliver_text(active);
  active.response.finish_reason =
      progress == Progress::kStop ? FinishReason::kStop : FinishReason::kLength;
  active.response.usage.decode_ms = done_ms - active.first_token_ms;
  active.response.usage.total_ms = done_ms - active.submitted_ms;
  learn(costs_.service_ms, done_ms - active.admitted_ms);
  finish(active, std::move(active.response));
}

void EngineLoop::deliver_text(Active& active) {
  std::string text = active.skill->take_text();
  if (text.empty()) return;
  delivery_->post(
      [this, id = active.id, on_text = active.callbacks.on_text, text = std::move(text)] {
        bool goes_on = false;
        try {
          goes_on = on_text(text);
        } catch (...) {  // the callback's own trouble: its request ends, nobody else's
        }
        if (!goes_on) cancel(id);
      });
}

// The one way out. Gives back everything that the request holds, tells the caller, and forgets it;
// what a step in flight still writes to follows when that step has come back.
void EngineLoop::finish(Active& active, Result<Response> result) {
  const std::uint64_t id = active.id;
  unprepared_.erase({active.place_ms(), id});
  deadlines_.erase({active.generation.deadline_ms, id});
  if (active.in_preparation) --num_in_preparation_;
  if (active.waits_for_picture) {
    const auto found = pictures_.find(active.identity);
    std::erase(found->second.waiting, id);
    if (found->second.waiting.empty() && found->second.job != nullptr) {
      scheduler_.drop_picture(*found->second.job);
      pictures_.erase(found);
    }
  }
  if (result.ok()) {
    metrics_.count_answer(active.request.skill, *result);
  } else {
    metrics_.count_error(active.request.skill, result.error().code);
  }
  log(active, result);
  std::unique_ptr<Active> owned = std::move(requests_.extract(id).mapped());
  if (owned->callbacks.on_done) {
    delivery_->post([on_done = owned->callbacks.on_done,
                     answer = std::make_shared<Result<Response>>(std::move(result))] {
      try {
        on_done(std::move(*answer));
      } catch (...) {  // nobody is left to tell
      }
    });
  }
  if (!scheduler_.remove(owned->generation)) leaving_.emplace(id, std::move(owned));
  --num_inside_;
}

void EngineLoop::log(const Active& active, const Result<Response>& result) {
  if (!options_.log) return;
  RequestRecord record;
  record.received = active.received;
  record.id = std::to_string(active.id);
  record.skill = skill_name(active.request.skill);
  record.adapter = active.request.adapter;
  record.image_cached = active.image_cached;
  if (result.ok()) {
    record.usage = result->usage;
    record.finish_reason = result->finish_reason;
  } else {
    record.usage = active.response.usage;
    record.usage.total_ms = now_ms() - active.submitted_ms;
    record.error = result.error();
  }
  delivery_->post([this, record = std::move(record)] { options_.log->write(record); });
}

void EngineLoop::expire(double at_ms) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= at_ms) {
    finish(*requests_.at(deadlines_.begin()->second),
           error(ErrorCode::kDeadlineExceeded, "the deadline has passed"));
  }
}

void EngineLoop::update_gauges() {
  metrics_.requests_running.set(scheduler_.num_running());
  metrics_.requests_waiting.set(static_cast<std::int64_t>(requests_.size()) -
                                scheduler_.num_running());
  metrics_.kv_pages.set(pages_.num_pages());
  metrics_.kv_pages_used.set(pages_.num_pages() - pages_.num_free());
  metrics_.image_cache_bytes.set(static_cast<std::int64_t>(images_.size_bytes()));
  const std::int64_t preemptions = scheduler_.num_preemptions();
  metrics_.preemptions.add(
      static_cast<std::uint64_t>(preemptions - std::exchange(preemptions_counted_, preemptions)));
  service_ms_ = costs_.service_ms;
}

}  // namespace fovea
