#pragma once

#include <memory>

#include "fovea/options.h"
#include "fovea/request.h"
#include "fovea/response.h"

#include "base/thread_pool.h"
#include "engine/kv_cache.h"
#include "engine/model_runner.h"
#include "engine/skill.h"
#include "model/model.h"

namespace fovea {

/// Answers one request at a time: picture, vision, prefill, then a token a step until the skill is
/// done. One thread.
class Generator {
 public:
  /// The device and model must outlive the generator. Takes memory for one sequence of
  /// model.max_context() positions.
  static Result<std::unique_ptr<Generator>> create(Device& device, const Model& model,
                                                   SkillFactory skills,
                                                   const EngineOptions& options);

  /// Errors concern this request alone. `on_text` may be empty.
  Result<Response> generate(const Request& request, const StreamCallback& on_text);

  std::size_t kv_cache_bytes() const { return cache_.size_bytes(); }
  std::size_t scratch_bytes() const { return runner_->activations().size_bytes(); }

 private:
  Generator(const Model& model, PagedKvCache cache, SkillFactory skills,
            const EngineOptions& options);

  Result<int> token_budget(int prompt_len, const SkillState& skill, const Request& request) const;
  Status decode(Sequence& sequence, SkillState& skill, const Sampling& sampling, int budget,
                const StreamCallback& on_text, Response& response, double started_ms);

  const Model& model_;
  PagedKvCache cache_;
  SkillFactory skills_;
  PictureLimits picture_limits_;
  Compatibility compatibility_;
  ThreadPool picture_threads_;
  std::unique_ptr<ModelRunner> runner_;
};

}  // namespace fovea
