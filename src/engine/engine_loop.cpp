#include "engine/engine_loop.h"

#include <algorithm>

#include "base/clock.h"
#include "base/error.h"
#include "base/guard.h"
#include "engine/active_request.h"

namespace fovea {
namespace {

constexpr double kCostMemory = 0.9;  // of the old estimate, when a new measurement comes in

void learn(double& estimate, double measured) {
  estimate = estimate == 0 ? measured : kCostMemory * estimate + (1 - kCostMemory) * measured;
}

}  // namespace

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
  pictures_->start(costs_);
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
    fail(static_cast<std::uint64_t>(generation->order), too_late());
  }
  for (const std::shared_ptr<PictureJob>& picture : scheduler_.take_hopeless_pictures()) {
    costs_.encoded_service.doubt();
    pictures_->give_up(*picture);
    idle_ = false;
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
      pictures_->add(a.id, a.place_ms(), a.generation.deadline_ms, a.request, a.adapter.id());
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
  active.picture_since_ms = picture.since_ms;
  active.encoding_since_ms = picture.encoding_since_ms;
  Generation& generation = active.generation;
  generation.was_encoded = picture.encoding_since_ms > 0;
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
  service_ms_ = costs_.service.mean_ms();
}

}  // namespace fovea
