#pragma once

#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "engine/adapter_residency.h"
#include "engine/page_allocator.h"
#include "engine/prefix_cache.h"
#include "engine/step_budget.h"
#include "engine/step_costs.h"
#include "engine/step_plan.h"

namespace fovea {

struct SchedulerOptions {
  int max_sequences = 64;     ///< running at once
  int max_rows = 1024;        ///< of a step; at least the longest prefix plus max_sequences
  int max_crops = 2;          ///< of a step's vision batch
  double max_stall_ms = 250;  ///< picture work and prompts that a step may add while answers run
  double vision_wait_ms = 2;  ///< how long crops may wait for others to share their batch
};

/// Decides what each step does: continuous batching (Orca, Yu et al. 2022) with prompts in chunks
/// between decoded tokens, crops of several pictures in one vision batch, pages on demand with
/// pre-emption. Knows sequences, pages, budgets and time; no tensor, no skill, no thread.
///
/// Order: by arrival, minus a head start for priority, so that nobody waits for ever. Answers that
/// run go on in every step; prompts and crops fill what is left of the step, within max_stall_ms,
/// though one indivisible piece (a picture's prefix, a crop) may exceed it. When pages run out:
/// cached ones are evicted, then the newest sequence is pre-empted; its picture stays in the prefix
/// cache as long as there is room. A sequence whose adapter is not on the device is passed over
/// until it is.
class Scheduler {
 public:
  /// Allocator, cache and adapters must outlive the scheduler.
  Scheduler(const SchedulerOptions& options, PageAllocator& pages, PrefixCache& cache,
            AdapterResidency& adapters);

  /// Lines up a generation whose picture is encoded or cached. It must stay alive until remove() or
  /// until it turns up in take_homeless() or take_hopeless().
  void add(Generation& generation);

  /// Takes a generation out, at any moment. True when nothing in flight refers to it any more and
  /// its pages are back; otherwise commit() reports it later.
  bool remove(Generation& generation) noexcept;

  /// Lines up a picture whose crops are ready.
  void add_picture(std::shared_ptr<PictureJob> picture);
  /// Nobody wants this picture any more: crops that are not planned yet are dropped.
  void drop_picture(const PictureJob& picture) noexcept;

  /// Plans the next step. `more_pictures`: others are being prepared and may join a vision batch.
  /// A generation for which memory runs out here is left out, and turns up in failed(). Throws
  /// std::bad_alloc, before anything is planned, when there is no memory for a plan at all.
  StepPlan plan(double now_ms, const StepCosts& costs, bool more_pictures);

  /// The step has come back. Generations that only waited for it are appended to `left`. Call it
  /// before tokens are appended.
  void commit(const StepPlan& plan, std::vector<Generation*>& left);
  /// Takes rows back that were planned and will not be launched; the generation stays, or has left
  /// if it is kOutside afterwards.
  void withdraw(const PlannedRows& rows) noexcept;

  /// The step failed: its rows never ran. All generations in it must be removed by the caller
  /// afterwards.
  void abandon(const StepPlan& plan, std::vector<Generation*>& left);

  /// Generations whose picture is neither cached nor encoded any more: their picture must be made
  /// again before add().
  std::vector<Generation*> take_homeless() { return std::exchange(homeless_, {}); }
  /// Generations that could hardly finish before their deadline if they started now, and would take
  /// the place of others. Where nobody else waits, one is tried all the same: so nothing is refused
  /// that costs nobody anything, and estimates that are too high do not last.
  std::vector<Generation*> take_hopeless() { return std::exchange(hopeless_, {}); }
  /// The same for pictures whose requests could hardly be answered in time if encoding went on now;
  /// they are no longer lined up.
  std::vector<std::shared_ptr<PictureJob>> take_hopeless_pictures() {
    return std::exchange(hopeless_pictures_, {});
  }
  /// Generations that there was no memory for, until the next plan; the caller must remove them.
  const std::vector<Generation*>& failed() const { return failed_; }

  int num_waiting() const { return static_cast<int>(waiting_.size()); }
  int num_running() const { return static_cast<int>(running_.size()); }
  int num_leaving() const { return num_leaving_; }
  int num_queued_crops() const { return num_queued_crops_; }
  std::int64_t num_preemptions() const { return num_preemptions_; }
  /// When plan() should be asked again although nothing happens: a vision batch is waiting for
  /// others. Infinity when there is no such moment.
  double next_wakeup_ms() const { return next_wakeup_ms_; }

  /// Largest number of positions that one sequence can ever hold.
  int max_positions(int page_size) const { return pages_.num_pages() * page_size; }

 private:
  using Place = std::pair<double, std::int64_t>;
  using PictureKey = std::pair<std::int32_t, ImageIdentity>;

  static Place place_of(const Generation& generation) {
    return {generation.place_ms, generation.order};
  }
  static PictureKey prefix_of(const Generation& generation) {
    return {generation.sequence->adapter(),
            generation.sequence->picture().value_or(ImageIdentity{})};
  }
  static bool is_decoding(const Generation& generation);
  static bool is_planned(const Generation& generation, const StepPlan& plan);
  bool make_room(Generation& generation, int num_positions, StepPlan& plan, bool may_preempt);
  void preempt(Generation& victim) noexcept;
  void fail(Generation& generation) noexcept;
  void collect_candidates(bool decoding);
  bool try_admit(Generation& generation, StepPlan& plan, StepBudget& budget, bool& goes_on);
  void plan_decodes(StepPlan& plan, StepBudget& budget);
  void plan_prompts(StepPlan& plan, StepBudget& budget);
  void plan_admissions(StepPlan& plan, StepBudget& budget, double now_ms, const StepCosts& costs);
  void give_up_pictures(double now_ms, const StepCosts& costs);
  void plan_crops(StepPlan& plan, StepBudget& budget, double now_ms, bool more_pictures);
  int affordable_rows(const Generation& generation, const StepBudget& budget) const;
  void add_rows(StepPlan& plan, Generation& generation, int end, StepBudget& budget) noexcept;
  void offer(Sequence& sequence, int num_positions) noexcept;
  void leave(Generation& generation) noexcept;

  SchedulerOptions options_;
  PageAllocator& pages_;
  PrefixCache& cache_;
  AdapterResidency& adapters_;
  std::map<Place, Generation*> waiting_, running_;
  std::map<PictureKey, const Generation*> prefixes_in_flight_;
  std::deque<std::shared_ptr<PictureJob>> pictures_;
  std::vector<Generation*> homeless_, hopeless_;
  std::vector<std::shared_ptr<PictureJob>> hopeless_pictures_;
  // With room for every sequence: filling them takes no memory.
  std::vector<Generation*> failed_, candidates_;
  int num_queued_crops_ = 0;
  int num_leaving_ = 0;
  std::int64_t num_preemptions_ = 0;
  bool last_step_stalled_ = false;  // it held prompts or crops while answers were running
  double next_wakeup_ms_ = std::numeric_limits<double>::infinity();
};

}  // namespace fovea
