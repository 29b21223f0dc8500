#include "engine/scheduler.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/guard.h"

namespace fovea {

Scheduler::Scheduler(const SchedulerOptions& options, PageAllocator& pages, PrefixCache& cache,
                     AdapterResidency& adapters)
    : options_(options), pages_(pages), cache_(cache), adapters_(adapters) {
  FOVEA_CHECK(options.max_sequences >= 1 && options.max_rows > options.max_sequences &&
                  options.max_crops >= 1,
              "a step of {} rows and {} crops for {} sequences", options.max_rows,
              options.max_crops, options.max_sequences);
  candidates_.reserve(static_cast<std::size_t>(options.max_sequences));
  failed_.reserve(static_cast<std::size_t>(options.max_sequences) + 1);
}

void Scheduler::add(Generation& generation) {
  FOVEA_CHECK(generation.state == Generation::State::kOutside, "generation {} is here already",
              generation.order);
  waiting_.emplace(place_of(generation), &generation);
  generation.state = Generation::State::kWaiting;
}

bool Scheduler::remove(Generation& generation) noexcept {
  using State = Generation::State;
  switch (generation.state) {
    case State::kOutside:
      return true;
    case State::kWaiting:
      waiting_.erase(place_of(generation));
      break;
    case State::kRunning:
      running_.erase(place_of(generation));
      break;
    case State::kLeaving:
      return false;
  }
  const auto flight = prefixes_in_flight_.find(prefix_of(generation));
  if (flight != prefixes_in_flight_.end() && flight->second == &generation) {
    prefixes_in_flight_.erase(flight);
  }
  if (generation.steps_in_flight > 0) {
    generation.state = State::kLeaving;
    ++num_leaving_;
    return false;
  }
  leave(generation);
  return true;
}

// What there is no memory for is not cached.
void Scheduler::offer(Sequence& sequence, int num_positions) noexcept {
  if (num_positions > 0) (void)guarded([&] { sequence.offer_to_cache(num_positions); });
}

// The pages go back, but what they hold stays findable for as long as there is room.
void Scheduler::leave(Generation& generation) noexcept {
  Sequence& sequence = *generation.sequence;
  const int known = std::min(sequence.num_computed(), sequence.length());
  offer(sequence, known);
  sequence.release();
  if (generation.adapter_slot >= 0) {
    adapters_.unpin(*generation.adapter);
    generation.adapter_slot = kNoAdapter;
  }
  generation.state = Generation::State::kOutside;
}

bool Scheduler::is_decoding(const Generation& generation) {
  return generation.sequence->num_computed() >= generation.sequence->length() - 1;
}

StepPlan Scheduler::plan(double now_ms, const StepCosts& costs, bool more_pictures) {
  StepPlan plan;
  // From here on, what cannot be had ends the generation that it was for.
  const auto most = static_cast<std::size_t>(options_.max_sequences);
  plan.rows.reserve(most);
  plan.copies.reserve(most);
  plan.crops.reserve(static_cast<std::size_t>(options_.max_crops));
  failed_.clear();
  next_wakeup_ms_ = std::numeric_limits<double>::infinity();
  StepBudget budget;
  budget.rows = options_.max_rows;
  budget.stall_ms = options_.max_stall_ms;
  budget.costs = &costs;
  budget.answers_run = std::any_of(running_.begin(), running_.end(), [](const auto& entry) {
    return entry.second->sequence->num_generated() > 0;
  });
  // Two large pieces never follow one another: between them, answers take a step of their own.
  budget.may_exceed = !last_step_stalled_;

  plan_decodes(plan, budget);
  plan_prompts(plan, budget);
  plan_admissions(plan, budget, now_ms, costs);
  // Without memory to note who is given up, nobody is.
  (void)guarded([&] { give_up_pictures(now_ms, costs); });
  plan_crops(plan, budget, now_ms, more_pictures);
  last_step_stalled_ = budget.answers_run && (plan.num_prefill_rows > 0 || plan.num_crops > 0);
  for (const PlannedRows& rows : plan.rows) ++rows.generation->steps_in_flight;
  return plan;
}

// Takes pages until `num_positions` of a sequence fit: cached ones are evicted first, then newer
// sequences than this one are pre-empted, newest first.
bool Scheduler::make_room(Generation& generation, int num_positions, StepPlan& plan,
                          bool may_preempt) {
  Sequence& sequence = *generation.sequence;
  for (;;) {
    const int missing = sequence.pages_missing(num_positions) - pages_.num_free();
    if (missing <= 0) break;
    if (cache_.evict(missing) > 0) continue;
    if (!may_preempt) return false;
    Generation* victim = nullptr;
    for (auto entry = running_.rbegin(); entry != running_.rend(); ++entry) {
      Generation& candidate = *entry->second;
      if (&candidate == &generation) break;
      // What a step in flight writes to cannot be given away.
      if (candidate.steps_in_flight == 0 && !is_planned(candidate, plan)) {
        victim = &candidate;
        break;
      }
    }
    if (victim != nullptr) {
      preempt(*victim);
      continue;
    }
    return false;
  }
  std::optional<Sequence::PageCopy> copy;
  const bool fits = sequence.reserve(num_positions, copy);
  FOVEA_CHECK(fits, "pages for {} positions were free a moment ago", num_positions);
  // There is room for it: one for each sequence.
  if (copy) plan.copies.push_back(*copy);
  return true;
}

bool Scheduler::is_planned(const Generation& generation, const StepPlan& plan) {
  return std::any_of(plan.rows.begin(), plan.rows.end(),
                     [&](const PlannedRows& rows) { return rows.generation == &generation; });
}

// Back to the line, at its old place, with everything that it has computed left in the cache for as
// long as nobody needs the room.
void Scheduler::preempt(Generation& victim) noexcept {
  ++num_preemptions_;
  auto entry = running_.extract(place_of(victim));
  const auto flight = prefixes_in_flight_.find(prefix_of(victim));
  if (flight != prefixes_in_flight_.end() && flight->second == &victim) {
    prefixes_in_flight_.erase(flight);
  }
  leave(victim);
  victim.state = Generation::State::kWaiting;
  waiting_.insert(std::move(entry));
}

void Scheduler::fail(Generation& generation) noexcept {
  if (failed_.size() < failed_.capacity()) failed_.push_back(&generation);
}

// Those that run and decode, or do not yet.
void Scheduler::collect_candidates(bool decoding) {
  candidates_.clear();
  for (const auto& [place, generation] : running_) {
    if (is_decoding(*generation) == decoding) candidates_.push_back(generation);
  }
}

void Scheduler::add_rows(StepPlan& plan, Generation& generation, int end,
                         StepBudget& budget) noexcept {
  Sequence& sequence = *generation.sequence;
  PlannedRows rows;
  rows.generation = &generation;
  rows.order = static_cast<std::uint64_t>(generation.order);
  rows.begin = sequence.num_computed();
  rows.end = end;
  rows.feeds_back = end > sequence.length();
  rows.samples = end >= sequence.length();
  rows.draw = sequence.num_generated() + (rows.feeds_back ? 1 : 0);
  const int count = rows.end - rows.begin;
  plan.rows.push_back(rows);
  plan.num_rows += count;
  budget.rows -= count;
  sequence.mark_computed(end);
  if (rows.samples) generation.awaits_token = true;
}

void Scheduler::plan_decodes(StepPlan& plan, StepBudget& budget) {
  collect_candidates(true);
  for (Generation* generation : candidates_) {
    if (generation->state != Generation::State::kRunning) continue;  // pre-empted just now
    Sequence& sequence = *generation->sequence;
    int end = sequence.length();
    if (generation->awaits_token) {
      // The token of the step in flight is on the device; its successor's rule must be known here.
      if (!generation->may_run_ahead || generation->guessed_wrong) continue;
      if (sequence.num_computed() > sequence.length()) continue;
      if (sequence.num_generated() + 1 >= generation->max_new_tokens) continue;
      end = sequence.length() + 1;
    }
    if (budget.rows < end - sequence.num_computed()) continue;
    bool has_room = false;
    if (!guarded([&] { has_room = make_room(*generation, end, plan, true); }).ok()) {
      fail(*generation);
      continue;
    }
    if (!has_room) {
      // Older ones hold the rest. Alone, with a cache that its own beginning locks, it starts
      // again.
      if (generation->steps_in_flight == 0) preempt(*generation);
      continue;
    }
    add_rows(plan, *generation, end, budget);
  }
}

// How far a prompt may go in this step: the picture's prefix as a whole or not at all, words as
// many as fit.
int Scheduler::affordable_rows(const Generation& generation, const StepBudget& budget) const {
  const Sequence& sequence = *generation.sequence;
  const int begin = sequence.num_computed();
  const int left = sequence.length() - begin;
  const int indivisible = begin < sequence.prefix_len() ? sequence.prefix_len() - begin : 1;
  int rows = std::min(left, budget.rows);
  if (budget.answers_run && budget.costs->row_ms > 0) {
    const double affordable = std::floor(budget.stall_ms / budget.costs->row_ms);
    if (affordable < rows) rows = std::max(static_cast<int>(affordable), 0);
    if (rows < indivisible && budget.may_exceed) rows = std::min(indivisible, budget.rows);
  }
  return rows < indivisible ? 0 : rows;
}

void Scheduler::plan_prompts(StepPlan& plan, StepBudget& budget) {
  collect_candidates(false);
  for (Generation* generation : candidates_) {
    if (generation->state != Generation::State::kRunning) continue;
    if (is_planned(*generation, plan)) continue;
    const int rows = affordable_rows(*generation, budget);
    if (rows == 0) continue;
    const int begin = generation->sequence->num_computed();
    bool has_room = false;
    if (!guarded([&] { has_room = make_room(*generation, begin + rows, plan, true); }).ok()) {
      fail(*generation);
      continue;
    }
    if (!has_room) {
      if (generation->steps_in_flight == 0) preempt(*generation);
      continue;
    }
    add_rows(plan, *generation, begin + rows, budget);
    plan.num_prefill_rows += rows;
    budget.pay(rows * budget.costs->row_ms);
  }
}

void Scheduler::plan_admissions(StepPlan& plan, StepBudget& budget, double now_ms,
                                const StepCosts& costs) {
  auto next = waiting_.begin();
  while (next != waiting_.end() && num_running() < options_.max_sequences) {
    Generation& generation = *(next++)->second;
    const std::size_t num_copies = plan.copies.size();
    bool goes_on = true, again = true;
    const Status tried = guarded([&] {
      // Whose picture has been encoded for it was given time enough then.
      const TimeEstimate& service = costs.service;
      const double needed_ms = generation.was_encoded ? service.mean_ms() : service.safe_ms();
      if (generation.deadline_ms > 0 && num_waiting() > 1 &&
          now_ms + needed_ms > generation.deadline_ms) {
        hopeless_.push_back(&generation);
        waiting_.erase(place_of(generation));
        generation.state = Generation::State::kOutside;
        return;
      }
      while (again) again = try_admit(generation, plan, budget, goes_on);
    });
    if (!tried.ok()) {
      // A copy that was planned for it is not made.
      while (plan.copies.size() > num_copies) {
        pages_.release(plan.copies.back().from);
        plan.copies.pop_back();
      }
      generation.sequence->release();
      fail(generation);
    }
    if (!goes_on) break;
  }
}

// Starts a generation that waits, or leaves it in line. `goes_on` becomes false when nobody behind
// it may start either. True: try the same one again. Whatever throws does so before the state
// changes.
bool Scheduler::try_admit(Generation& generation, StepPlan& plan, StepBudget& budget,
                          bool& goes_on) {
  Sequence& sequence = *generation.sequence;
  if (generation.adapter != nullptr && !adapters_.is_ready(generation.adapter)) return false;
  // Somebody computes this very prefix: it is shared in a step or two.
  if (sequence.picture() && prefixes_in_flight_.contains(prefix_of(generation))) return false;
  const int cached = sequence.start_from_cache();
  if (cached < sequence.prefix_len() && sequence.image() == nullptr) {
    sequence.release();
    homeless_.push_back(&generation);
    waiting_.erase(place_of(generation));
    generation.state = Generation::State::kOutside;
    return false;
  }
  const int rows = affordable_rows(generation, budget);
  // Who is running keeps its pages: a newcomer waits for what comes free.
  if (rows == 0 || !make_room(generation, sequence.num_computed() + rows, plan, false)) {
    sequence.release();
    // Alone, only the cache can be in its way: its own beginning, cached with pages to spare.
    if (rows > 0 && running_.empty() && num_leaving_ == 0 && cache_.num_nodes() > 0) {
      cache_.clear();
      return true;
    }
    goes_on = false;  // in order: nobody overtakes the one that needs more
    return false;
  }
  if (sequence.num_computed() < sequence.prefix_len()) {
    prefixes_in_flight_.emplace(prefix_of(generation), &generation);
  }
  running_.insert(waiting_.extract(place_of(generation)));
  generation.state = Generation::State::kRunning;
  if (generation.adapter != nullptr) {
    adapters_.pin(*generation.adapter);
    generation.adapter_slot = generation.adapter->slot;
  }
  if (!generation.was_admitted) {
    generation.was_admitted = true;
    generation.cached_tokens = std::min(cached, sequence.prompt_len());
  }
  add_rows(plan, generation, sequence.num_computed() + rows, budget);
  plan.num_prefill_rows += rows;
  budget.pay(rows * budget.costs->row_ms);
  return false;
}

void Scheduler::commit(const StepPlan& plan, std::vector<Generation*>& left) {
  for (const Sequence::PageCopy& copy : plan.copies) pages_.release(copy.from);
  for (const PlannedRows& rows : plan.rows) {
    Generation& generation = *rows.generation;
    Sequence& sequence = *generation.sequence;
    --generation.steps_in_flight;
    if (rows.samples) generation.awaits_token = generation.steps_in_flight > 0;
    if (rows.feeds_back && std::exchange(generation.guessed_wrong, false)) {
      // Computed on another token than the one that came: it is computed again.
      sequence.mark_computed(std::min(sequence.num_computed(), rows.begin));
    }
    if (generation.state == Generation::State::kLeaving) {
      if (generation.steps_in_flight > 0) continue;
      --num_leaving_;
      leave(generation);
      left.push_back(&generation);
      continue;
    }
    // The picture's prefix is offered at once, so that others of the same picture can start.
    if (rows.begin < sequence.prefix_len() || rows.end == sequence.prompt_len()) {
      offer(sequence, std::min(rows.end, sequence.length()));
    }
    const auto flight = prefixes_in_flight_.find(prefix_of(generation));
    if (flight != prefixes_in_flight_.end() && flight->second == &generation &&
        rows.end >= sequence.prefix_len()) {
      prefixes_in_flight_.erase(flight);
    }
  }
}

// What the step should have written is not there: nothing of these sequences may reach the cache.
void Scheduler::abandon(const StepPlan& plan, std::vector<Generation*>& left) {
  for (const Sequence::PageCopy& copy : plan.copies) pages_.release(copy.from);
  for (const PlannedRows& rows : plan.rows) {
    const bool was_leaving = rows.generation->state == Generation::State::kLeaving;
    withdraw(rows);
    if (was_leaving && rows.generation->state == Generation::State::kOutside) {
      left.push_back(rows.generation);
    }
  }
}

void Scheduler::withdraw(const PlannedRows& rows) noexcept {
  Generation& generation = *rows.generation;
  --generation.steps_in_flight;
  if (rows.samples) generation.awaits_token = generation.steps_in_flight > 0;
  if (rows.feeds_back) generation.guessed_wrong = false;
  generation.sequence->mark_computed(std::min(generation.sequence->num_computed(), rows.begin));
  if (generation.state == Generation::State::kLeaving && generation.steps_in_flight == 0) {
    --num_leaving_;
    leave(generation);
  }
}

}  // namespace fovea
