#pragma once

#include <array>
#include <optional>

#include "engine/skill.h"
#include "model/prompt_config.h"

namespace fovea::skills {

/// What the list-making skills share: which slot comes next, and the rule for it.
///
/// Vocabularies with region tokens choose between "another object" (the coordinate id) and
/// end-of-sequence; the further slots of an object are forced. Older vocabularies have no such ids:
/// there any word but end-of-sequence means another object, and the further slots are read off
/// without choosing a word.
class RegionSlots {
 public:
  explicit RegionSlots(const PromptConfig& prompts);

  TokenRule object_or_end() const;
  TokenRule coordinate() const;
  TokenRule size() const;

 private:
  bool by_id_;
  std::array<TokenId, 2> coord_or_eos_;
  TokenId coord_, size_;
};

/// Probability that an object was there at all, times the geometric mean of the probabilities close
/// to each chosen number. For older vocabularies the first factor is 1: their words do not tell.
double region_confidence(const PromptConfig& prompts, const SampledToken& first,
                         std::initializer_list<float> localisation);

}  // namespace fovea::skills
