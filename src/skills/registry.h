#pragma once

#include <memory>

#include "fovea/options.h"

#include "engine/skill.h"
#include "io/tokenizer.h"
#include "model/prompt_config.h"
#include "skills/token_constraint.h"

namespace fovea::skills {

/// What every skill needs of the model it speaks for. All outlive the states made from it.
struct SkillContext {
  const PromptConfig& prompts;
  const Tokenizer& tokenizer;
  const Compatibility& compatibility;
  std::shared_ptr<LazyTokenTrie> token_trie{};  ///< for answers held to a schema; the factory's own
};

/// A factory over every skill of this folder.
SkillFactory make_factory(const SkillContext& context);

// One a skill. Errors name the field that is wrong, or say that the model lacks the skill.
Result<std::unique_ptr<SkillState>> make_caption(const SkillContext& context,
                                                 const Request& request,
                                                 const CaptionRequest& caption);
Result<std::unique_ptr<SkillState>> make_query(const SkillContext& context, const Request& request,
                                               const QueryRequest& query);
Result<std::unique_ptr<SkillState>> make_detect(const SkillContext& context, const Request& request,
                                                const DetectRequest& detect);
Result<std::unique_ptr<SkillState>> make_point(const SkillContext& context, const Request& request,
                                               const PointRequest& point);

}  // namespace fovea::skills
