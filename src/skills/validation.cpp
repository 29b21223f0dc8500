#include "skills/validation.h"

#include <cmath>

#include "base/error.h"
#include "base/try.h"

namespace fovea::skills {
namespace {

constexpr std::size_t kMaxTextBytes = 100'000;
constexpr std::size_t kMaxSpatialRefs = 64;
constexpr std::size_t kMaxStopStrings = 16;
constexpr std::size_t kMaxBiases = 1024;
constexpr int kMaxTopLogprobs = 20;
constexpr int kMaxObjectsLimit = 10'000;

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

bool is_fraction(float value) { return value >= 0.0f && value <= 1.0f; }  // false for NaN

}  // namespace

Status check_sampling(const SamplingParams& sampling) {
  if (sampling.temperature &&
      !(*sampling.temperature >= 0 && std::isfinite(*sampling.temperature))) {
    return invalid_argument("temperature {} must be a finite number, at least 0",
                            *sampling.temperature);
  }
  if (sampling.top_p && !(*sampling.top_p > 0 && *sampling.top_p <= 1)) {
    return invalid_argument("top_p {} must lie above 0 and be at most 1", *sampling.top_p);
  }
  if (sampling.top_k && *sampling.top_k < 0)
    return invalid_argument("top_k {} must be at least 0", *sampling.top_k);
  if (sampling.min_p && !(*sampling.min_p >= 0 && *sampling.min_p < 1)) {
    return invalid_argument("min_p {} must be at least 0 and lie below 1", *sampling.min_p);
  }
  if (sampling.max_tokens && *sampling.max_tokens < 1) {
    return invalid_argument("max_tokens {} must be at least 1", *sampling.max_tokens);
  }
  if (!(sampling.repetition_penalty > 0 && std::isfinite(sampling.repetition_penalty))) {
    return invalid_argument("repetition_penalty {} must be a finite number above 0",
                            sampling.repetition_penalty);
  }
  if (!(std::abs(sampling.presence_penalty) <= 2)) {
    return invalid_argument("presence_penalty {} must lie in -2..2", sampling.presence_penalty);
  }
  if (!(std::abs(sampling.frequency_penalty) <= 2)) {
    return invalid_argument("frequency_penalty {} must lie in -2..2", sampling.frequency_penalty);
  }
  if (sampling.logit_bias.size() > kMaxBiases) {
    return invalid_argument("{} logit biases were given; at most {} are taken",
                            sampling.logit_bias.size(), kMaxBiases);
  }
  for (const auto& [id, bias] : sampling.logit_bias) {
    if (!(std::abs(bias) <= 100)) {
      return invalid_argument("logit_bias: {} for id {} must lie in -100..100", bias, id);
    }
  }
  if (sampling.top_logprobs &&
      (*sampling.top_logprobs < 0 || *sampling.top_logprobs > kMaxTopLogprobs)) {
    return invalid_argument("top_logprobs {} must lie in 0..{}", *sampling.top_logprobs,
                            kMaxTopLogprobs);
  }
  if (sampling.stop.size() > kMaxStopStrings) {
    return invalid_argument("{} stop strings were given; at most {} are taken",
                            sampling.stop.size(), kMaxStopStrings);
  }
  for (const std::string& stop : sampling.stop) {
    if (stop.empty()) return invalid_argument("a stop string is empty");
  }
  return {};
}

Status check_scheduling(const Request& request) {
  if (request.priority < -100 || request.priority > 100) {
    return invalid_argument("priority {} must lie in -100..100", request.priority);
  }
  if (request.deadline_ms && !(*request.deadline_ms > 0 && std::isfinite(*request.deadline_ms))) {
    return invalid_argument("deadline_ms {} must be a finite number above 0", *request.deadline_ms);
  }
  return {};
}

Result<std::string> check_text(std::string_view field, std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  if (text.empty()) return invalid_argument("{} is empty", field);
  if (text.size() > kMaxTextBytes) {
    return error(ErrorCode::kResourceExhausted, "{} has {} bytes; at most {} are taken", field,
                 text.size(), kMaxTextBytes);
  }
  return std::string(text);
}

Status require_picture(std::string_view skill, const Request& request) {
  if (request.picture) return {};
  return invalid_argument("{} needs a picture", skill);
}

Status check_max_objects(std::optional<int> max_objects) {
  if (!max_objects || (*max_objects >= 1 && *max_objects <= kMaxObjectsLimit)) return {};
  return invalid_argument("max_objects {} must lie in 1..{}", *max_objects, kMaxObjectsLimit);
}

Result<std::vector<Token>> spatial_tokens(const std::vector<SpatialRef>& refs,
                                          const Request& request, const PromptConfig& prompts) {
  std::vector<Token> tokens;
  if (refs.empty()) return tokens;
  if (!request.picture) return invalid_argument("spatial_refs need a picture");
  if (refs.size() > kMaxSpatialRefs) {
    return invalid_argument("{} spatial_refs were given; at most {} are taken", refs.size(),
                            kMaxSpatialRefs);
  }
  // Models without region tokens take the same embeddings; the id only marks the place.
  const TokenId coord = prompts.coord.value_or(kNoToken), size = prompts.size.value_or(kNoToken);
  for (const SpatialRef& ref : refs) {
    if (const auto* point = std::get_if<std::array<float, 2>>(&ref)) {
      const auto [x, y] = *point;
      if (!is_fraction(x) || !is_fraction(y)) {
        return invalid_argument("spatial_refs: point {},{} does not lie in 0..1", x, y);
      }
      tokens.insert(tokens.end(), {Token::coord(coord, x), Token::coord(coord, y)});
      continue;
    }
    const auto [x_min, y_min, x_max, y_max] = std::get<std::array<float, 4>>(ref);
    if (!is_fraction(x_min) || !is_fraction(y_min) || !is_fraction(x_max) || !is_fraction(y_max)) {
      return invalid_argument("spatial_refs: box {},{},{},{} does not lie in 0..1", x_min, y_min,
                              x_max, y_max);
    }
    if (x_min > x_max || y_min > y_max) {
      return invalid_argument("spatial_refs: box {},{},{},{} has its corners in the wrong order",
                              x_min, y_min, x_max, y_max);
    }
    tokens.insert(tokens.end(), {Token::coord(coord, (x_min + x_max) / 2),
                                 Token::coord(coord, (y_min + y_max) / 2),
                                 Token::size(size, x_max - x_min, y_max - y_min)});
  }
  return tokens;
}

void append_words(std::vector<Token>& tokens, const std::vector<TokenId>& ids) {
  for (const TokenId id : ids) tokens.push_back(Token::text(id));
}

}  // namespace fovea::skills
