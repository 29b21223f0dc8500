#include "skills/region_list.h"

#include <cmath>

namespace fovea::skills {

RegionSlots::RegionSlots(const PromptConfig& prompts)
    : by_id_(prompts.has_region_tokens()),
      coord_or_eos_{prompts.coord.value_or(kNoToken), prompts.eos},
      coord_(prompts.coord.value_or(kNoToken)),
      size_(prompts.size.value_or(kNoToken)) {}

TokenRule RegionSlots::object_or_end() const {
  if (!by_id_) return {.allowed = {}, .suppressed = {}, .slot = TokenRule::Slot::kCoord};
  return {.allowed = coord_or_eos_, .suppressed = {}};
}

TokenRule RegionSlots::coordinate() const {
  return {.allowed = {&coord_, 1}, .suppressed = {}, .slot = TokenRule::Slot::kCoord};
}

TokenRule RegionSlots::size() const {
  return {.allowed = {&size_, 1}, .suppressed = {}, .slot = TokenRule::Slot::kSize};
}

double region_confidence(const PromptConfig& prompts, const SampledToken& first,
                         std::initializer_list<float> localisation) {
  const double presence = prompts.has_region_tokens() ? std::exp(double{first.logprob}) : 1.0;
  double product = 1.0;
  for (const float probability : localisation) product *= double{probability};
  return presence * std::pow(product, 1.0 / static_cast<double>(localisation.size()));
}

}  // namespace fovea::skills
