#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fovea/request.h"
#include "fovea/result.h"

#include "engine/token.h"
#include "model/prompt_config.h"

namespace fovea::skills {

inline constexpr int kDefaultMaxTokens = 768;
inline constexpr int kDefaultMaxObjects = 50;

/// Ranges of every sampling parameter.
Status check_sampling(const SamplingParams& sampling);
/// Priority and deadline.
Status check_scheduling(const Request& request);

/// Without leading and trailing white space; an error when nothing is left or more than 100,000
/// bytes are.
Result<std::string> check_text(std::string_view field, std::string_view text);

Status require_picture(std::string_view skill, const Request& request);

/// At least 1 and at most 10,000.
Status check_max_objects(std::optional<int> max_objects);

/// Spatial references as prompt tokens: a point is two coordinates, a box its centre (two
/// coordinates) and its size. At most 64; values in [0, 1]; a box's min <= max; a picture is
/// needed.
Result<std::vector<Token>> spatial_tokens(const std::vector<SpatialRef>& refs,
                                          const Request& request, const PromptConfig& prompts);

/// Appends words.
void append_words(std::vector<Token>& tokens, const std::vector<TokenId>& ids);

}  // namespace fovea::skills
