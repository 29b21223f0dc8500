#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"

namespace fovea {

/// Ids around the user's text. A skill without a template cannot be asked for.
struct PromptTemplate {
  std::vector<TokenId> prefix;
  std::vector<TokenId> suffix;
};

/// A word whose id is known in advance: a tokenizer that gives it another id belongs to another
/// model.
struct KnownWord {
  TokenId id;
  std::string text;
};

/// Control ids, templates and the masks that go with them: what sets Moondream 2 and 3 apart in
/// decoding.
struct PromptConfig {
  TokenId bos{0}, eos{0};
  std::optional<TokenId> answer, thinking, coord, size, start_ground_points, end_ground;
  std::vector<TokenId> caption_short, caption_normal, caption_long;  ///< empty = unsupported
  std::optional<PromptTemplate> query, detect, point;
  std::vector<TokenId> answer_opener;         ///< after a question
  std::vector<TokenId> reasoning_opener;      ///< the same when it thinks first; empty = cannot
  std::vector<TokenId> post_reasoning;        ///< forced between reasoning and answer
  std::vector<TokenId> answer_suppressed;     ///< never generated in captions and answers
  std::vector<TokenId> reasoning_suppressed;  ///< never generated while reasoning
  bool reasoning_by_default = false;
  std::optional<KnownWord> known_word;

  /// Detect and point need the two region slots in the vocabulary.
  bool has_region_tokens() const { return coord.has_value() && size.has_value(); }
};

}  // namespace fovea
