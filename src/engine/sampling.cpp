#include "engine/sampling.h"

#include <map>
#include <variant>

namespace fovea {

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

}  // namespace fovea
