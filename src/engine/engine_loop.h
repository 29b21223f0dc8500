#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fovea/engine.h"
#include "fovea/request.h"
#include "fovea/response.h"

#include "engine/adapter_manager.h"
#include "engine/delivery.h"
#include "engine/inbox.h"
#include "engine/metrics.h"
#include "engine/picture_pipeline.h"
#include "engine/request_log.h"
#include "engine/scheduler.h"
#include "engine/skill.h"
#include "engine/step_runner.h"

namespace fovea {

/// What the loop must know of a model.
struct ModelFacts {
  TokenId bos, eos;
  int vocab_size = 0;
  int image_tokens = 0;  ///< positions of a picture
  int max_context = 0;   ///< positions of one sequence
  int page_size = 0;
  CropGeometry crops;
};

struct LoopOptions {
  SchedulerOptions scheduler;
  PictureLimits picture_limits;
  bool mask_first_token = true;  ///< a skill's suppressed ids hold for the first token as well
  int max_queue = 1024;          ///< requests in the engine at once, those that run included
  int picture_threads = 1;       ///< for each picture; two pictures are worked on side by side
  std::size_t image_cache_bytes = 0;
  std::optional<ImageStore> image_store;  ///< encoded pictures that outlive the process
  std::optional<RequestLog> log;
};

/// The engine: requests in, answers out. Callers validate and line up requests on their own
/// threads; picture workers decode and cut; one thread plans, launches and commits steps; another
/// delivers to the callers, so that a slow one holds nobody up. A fault stays with its request.
class EngineLoop {
 public:
  /// Runner, page allocator and adapter store (null: there are no adapters) must outlive the loop.
  /// `skills` is called on the callers' threads.
  EngineLoop(StepRunner& runner, PageAllocator& pages, const ModelFacts& model, SkillFactory skills,
             const LoopOptions& options, AdapterStore* adapters = nullptr);
  /// What is still in the engine ends with kCancelled.
  ~EngineLoop();
  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;

  /// Validates a request and lines it up. Errors name the field or the limit; kOverloaded when the
  /// queue is full. Callbacks come from the delivery thread: text in order, then `on_done` once.
  Result<std::uint64_t> submit(Request request, Callbacks callbacks);

  /// Ends a request wherever it is; on_done is told kCancelled. No effect on one that has ended.
  void cancel(std::uint64_t id) noexcept;

  /// Forgets cached prefixes and pictures that nothing uses. Returns when that is done.
  void drop_caches();

  /// Adapters by name; any thread.
  AdapterManager& adapters() { return adapters_; }
  const AdapterManager& adapters() const { return adapters_; }

  EngineStats stats() const;
  const Metrics& metrics() const { return metrics_; }

 private:
  struct Active;
  using Requests = std::map<std::uint64_t, std::unique_ptr<Active>>;
  /// A place among the requests inside that nobody has taken yet.
  struct Place {
    std::atomic<int>* inside;
    ~Place() {
      if (inside != nullptr) --*inside;
    }
  };

  struct Validated {
    std::unique_ptr<SkillState> skill;
    AdapterUse adapter;
  };
  Result<std::uint64_t> line_up_at_door(Request& request, Callbacks& callbacks);
  Result<Validated> validate(const Request& request) const;

  void run();
  void step();
  void plan_and_launch();
  bool drain_inbox();
  void update_gauges();

  Active& active_of(const Generation& generation);
  void start(Requests::node_type entry) noexcept;
  void line_up(std::uint64_t id, const ReadyPicture& picture);
  void note_admissions(const StepPlan& plan);
  void launch(StepPlan plan);
  Status try_launch(StepPlan& plan);
  void collect();
  void note_step(const StepPlan& plan, const StepOutput& output);
  void forget_left() noexcept;
  void fail_step(const StepPlan& plan, const Error& error) noexcept;
  void set_rule(PlannedRows& rows);
  void update_run_ahead(Active& active) const;
  void check_guess(Active& active, const Token& token);
  void take_token(Active& active, const SampledToken& sampled, double now_ms);
  void complete(Active& active, Progress progress);
  void deliver_text(Active& active);
  void fail(std::uint64_t id, Error failure) noexcept;
  void fail_all_with(const AdapterEntry& adapter, const Error& failure) noexcept;
  void learn_from_late(const Active& active) noexcept;
  void finish(Active& active, Result<Response> result) noexcept;
  void expire(double now_ms);

  StepRunner& runner_;
  PageAllocator& pages_;
  ModelFacts model_;
  SkillFactory skills_;
  LoopOptions options_;
  Metrics metrics_;
  Inbox inbox_;
  PrefixCache cache_;
  AdapterManager adapters_;
  Scheduler scheduler_;
  StepCosts costs_;

  // Engine thread only.
  Requests requests_, leaving_;
  std::set<std::pair<double, std::uint64_t>> deadlines_;
  std::vector<StepPlan> in_flight_;  // oldest first, at most the runner's depth
  std::vector<Generation*> left_;    // with room for every sequence
  bool idle_ = false;                // the last step found nothing to do
  std::int64_t preemptions_counted_ = 0;

  std::mutex cancels_mutex_;                           // guards the one below
  std::map<std::uint64_t, Inbox::LetterPtr> cancels_;  // a letter for each request inside

  std::atomic<std::uint64_t> next_id_{1};
  std::atomic<int> num_inside_{0};
  std::atomic<double> service_ms_{0};  // of a request, from admission to its end: an estimate
  std::atomic<std::int64_t> num_steps_{0}, num_crops_{0};

  // Last: they stop first.
  Delivery delivery_;
  std::optional<PicturePipeline> pictures_;
  std::thread thread_;
};

}  // namespace fovea
