#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fovea/result.h"

#include "base/json.h"
#include "io/regex.h"

namespace fovea {

/// What becomes of the matches of a Split step.
enum class SplitBehavior {
  kRemoved,             ///< matches vanish
  kIsolated,            ///< each match is a piece
  kMergedWithPrevious,  ///< a match joins the piece before it
  kMergedWithNext,      ///< a match joins the piece after it
  kContiguous,          ///< matches that touch are one piece
};

/// Cuts text into pieces that are merged separately: the `pre_tokenizer` of a tokenizer.json.
/// Immutable: usable from several threads.
class PreTokenizer {
 public:
  /// The whole text is one piece.
  PreTokenizer() = default;

  /// The splitting pattern of GPT-2.
  static PreTokenizer gpt2();

  /// Reads a tokenizer.json's `pre_tokenizer` (a byte-level one: its last step is ByteLevel).
  /// Steps: ByteLevel, Split, Digits, Punctuation, Whitespace, WhitespaceSplit, CharDelimiterSplit
  /// and Sequences of them. `what` names the file. Errors: kUnsupported for other steps,
  /// kInvalidArgument for malformed ones.
  static Result<PreTokenizer> from_json(const json::value& value, std::string_view what);

  /// The pieces of one text. They view the text or `owned`.
  struct Pieces {
    std::vector<std::string_view> views;
    std::deque<std::string> owned;  // pieces that got a space in front
  };

  /// Appends the pieces of `text` (well-formed UTF-8, not empty), none empty.
  void split(std::string_view text, Pieces& pieces) const;

  /// True when the only thing to do is the GPT-2 pattern, which has a scanner of its own.
  bool is_plain_gpt2() const;

  /// True when the whole text is one piece.
  bool is_identity() const { return steps_.empty(); }

 private:
  enum class Kind { kPrefixSpace, kGpt2, kRegex, kLiteral };
  struct Step {
    Kind kind = Kind::kGpt2;
    SplitBehavior behavior = SplitBehavior::kIsolated;
    bool invert = false;
    std::shared_ptr<const Regex> regex;
    std::string literal;
  };
  Status add_json(const json::value& value, std::string_view what);
  Status add_byte_level(const json::object& object, std::string_view what);
  Status add_split(const json::object& object, std::string_view what);
  Status add_regex(std::string_view pattern, SplitBehavior behavior, bool invert,
                   std::string_view what);
  static void apply(const Step& step, std::string_view text, Pieces& pieces);

  std::vector<Step> steps_;
  bool byte_level_ = false;  // while reading: the last step was ByteLevel
};

}  // namespace fovea
