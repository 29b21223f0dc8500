#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fovea/request.h"
#include "fovea/response.h"
#include "fovea/result.h"

#include "engine/token.h"

namespace fovea {

/// What may come next in an answer.
struct TokenRule {
  enum class Slot {
    kById,   ///< the coordinate and size ids carry numbers
    kNever,  ///< every id is a word
    kCoord,  ///< any id but end-of-sequence stands for a coordinate (vocabularies without region
             ///< tokens)
    kSize,   ///< the same for a size
  };

  std::span<const TokenId> allowed;     ///< empty: all
  std::span<const TokenId> suppressed;  ///< never, even if allowed
  Slot slot = Slot::kById;
};

/// A guess at the step after the next one, made before the next token is known: what kind of token
/// that will be, unless it ends the answer, and the rule for the one behind it.
struct RuleAhead {
  Token::Kind next = Token::Kind::kText;
  TokenRule rule;
};

enum class Progress {
  kContinue,
  kStop,    ///< The answer is complete.
  kLength,  ///< A budget of the skill's own ran out.
};

/// One answer in the making: consumes sampled tokens, says what is allowed next, produces the
/// answer. Knows prompts and output shapes; knows nothing of scheduling, caches or tensors. One
/// thread at a time.
class SkillState {
 public:
  virtual ~SkillState() = default;

  /// What follows the beginning of sequence and the picture.
  virtual const std::vector<Token>& prompt() const = 0;
  /// Generated tokens at most, end-of-sequence included; and whether the caller chose that number.
  virtual int max_new_tokens() const = 0;
  /// The rule for the next token. Its spans stay valid until consume().
  virtual TokenRule next_rule() const = 0;
  /// What next_rule() will most likely be once the next token has been consumed, so that the step
  /// after the next one can be launched without waiting for it. A wrong guess costs the row that
  /// was computed on it, no more. Nothing: there is no telling. Spans as of next_rule().
  virtual std::optional<RuleAhead> rule_ahead() const { return std::nullopt; }
  virtual Progress consume(const SampledToken& sampled) = 0;
  /// Answer text that became final since the last call: whole characters, nothing that a stop
  /// string could still cut. After finish(), what is left. Skills that write no text have none.
  virtual std::string take_text() { return {}; }
  /// Fills text, reasoning, boxes and points. Called once, after the last token.
  virtual void finish(Response& response) = 0;
};

/// Makes the state for a request: validates its fields and builds the prompt. Errors name the
/// field.
using SkillFactory = std::function<Result<std::unique_ptr<SkillState>>(const Request& request)>;

}  // namespace fovea
