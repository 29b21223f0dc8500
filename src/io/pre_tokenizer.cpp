#include "io/pre_tokenizer.h"

#include <optional>
#include <utility>

#include "base/error.h"
#include "base/try.h"
#include "io/gpt2_scanner.h"

namespace fovea {
namespace {

constexpr std::size_t kMaxSteps = 32;
// The Whitespace step: runs of word characters and runs of what is neither word nor white space.
// Word characters are those of Unicode's Annex C here (Alphabetic, M, Nd, Pc, Join_Control), not
// those of Split patterns.
constexpr std::string_view kAnnexWordSet =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{200c}\x{200d}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";

// The Punctuation step: categories P* of Unicode 8 and ASCII's symbols. What is punctuation in the
// ranges in front became it later; two characters were it then and are it no more.
constexpr std::string_view kPunctuation =
    R"((?![\x{61d}\x{9fd}-\x{a76}\x{c77}-\x{c84}\x{1b4e}\x{1b4f}\x{1b7d}-\x{1b7f}\x{2e43}-\x{2e5d})"
    R"(\x{10d6e}-\x{10f89}\x{113d4}-\x{1145d}\x{11660}-\x{116b9}\x{1183b}-\x{11fff}\x{12ff1}\x{12ff2})"
    R"(\x{16d6d}-\x{16fe2}\x{1e5ff}-\x{1e95f}])[\p{P}$+<=>^`|~\x{166d}\x{111c9}])";

// A stretch of text that is one match, or lies between two.
struct Run {
  std::size_t begin;
  std::size_t end;
  bool is_match;
};

void add_run(std::vector<Run>& runs, std::size_t& done, std::size_t begin, std::size_t end) {
  if (begin > done) runs.push_back({done, begin, false});
  runs.push_back({begin, end, true});
  done = end;
}

std::vector<Run> regex_runs(const Regex& regex, std::string_view text) {
  std::vector<Run> runs;
  std::size_t done = 0;
  Regex::Searcher searcher(regex, text);
  for (Regex::Match match; searcher.next(match);) add_run(runs, done, match.begin, match.end);
  if (done < text.size()) runs.push_back({done, text.size(), false});
  return runs;
}

std::vector<Run> literal_runs(std::string_view literal, std::string_view text) {
  std::vector<Run> runs;
  std::size_t done = 0;
  for (std::size_t at = text.find(literal); at != std::string_view::npos;
       at = text.find(literal, done)) {
    add_run(runs, done, at, at + literal.size());
  }
  if (done < text.size()) runs.push_back({done, text.size(), false});
  return runs;
}

// Joins neighbours in place; `joins(previous, current)` says whether `current` extends the group of
// `previous`.
template <class Joins>
void join_runs(std::vector<Run>& runs, Joins joins) {
  std::size_t count = 0;
  bool previous_match = false;
  for (const Run& run : runs) {
    const bool is_match = run.is_match;
    if (count > 0 && joins(previous_match, is_match)) {
      runs[count - 1].end = run.end;
    } else {
      runs[count++] = run;
    }
    previous_match = is_match;
  }
  runs.resize(count);
}

// The ranges that remain after `behavior` was applied to `runs`. A match of no characters takes
// part in the joining, as in `tokenizers`.
void group_runs(std::vector<Run>& runs, SplitBehavior behavior) {
  switch (behavior) {
    case SplitBehavior::kRemoved:
      std::erase_if(runs, [](const Run& run) { return run.is_match; });
      return;
    case SplitBehavior::kIsolated:
      return;
    case SplitBehavior::kContiguous:
      return join_runs(runs, [](bool a, bool b) { return a == b; });
    case SplitBehavior::kMergedWithPrevious:
      return join_runs(runs, [](bool a, bool b) { return b && !a; });
    case SplitBehavior::kMergedWithNext:
      break;
  }
  // From the back: a match joins what follows it unless that is a match too, which then starts its
  // own group.
  std::vector<Run> groups;
  bool next_match = false;
  for (auto run = runs.rbegin(); run != runs.rend(); ++run) {
    if (run->is_match && !next_match && !groups.empty()) {
      groups.back().begin = run->begin;
    } else {
      groups.push_back(*run);
    }
    next_match = run->is_match;
  }
  runs.assign(groups.rbegin(), groups.rend());
}

std::optional<SplitBehavior> behavior_of(const json::value* name) {
  if (name == nullptr || !name->is_string()) return std::nullopt;
  const std::string_view text = name->get_string();
  if (text == "Removed") return SplitBehavior::kRemoved;
  if (text == "Isolated") return SplitBehavior::kIsolated;
  if (text == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (text == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (text == "Contiguous") return SplitBehavior::kContiguous;
  return std::nullopt;
}

// A boolean member; `fallback` when it is absent, nothing when it is something else.
std::optional<bool> bool_member(const json::object& object, std::string_view name, bool fallback) {
  const json::value* value = object.if_contains(name);
  if (value == nullptr) return fallback;
  return value->is_bool() ? std::optional<bool>(value->get_bool()) : std::nullopt;
}

std::string_view string_member(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  return value != nullptr && value->is_string() ? std::string_view(value->get_string())
                                                : std::string_view();
}

}  // namespace

PreTokenizer PreTokenizer::gpt2() {
  PreTokenizer result;
  result.steps_.emplace_back();
  return result;
}

bool PreTokenizer::is_plain_gpt2() const {
  return steps_.size() == 1 && steps_[0].kind == Kind::kGpt2;
}

Result<PreTokenizer> PreTokenizer::from_json(const json::value& value, std::string_view what) {
  PreTokenizer result;
  FOVEA_TRY_STATUS(result.add_json(value, what));
  if (!result.byte_level_) {
    return error(ErrorCode::kUnsupported,
                 "{}: the pre_tokenizer does not end with ByteLevel; only byte-level "
                 "vocabularies are supported",
                 what);
  }
  return result;
}

Status PreTokenizer::add_json(const json::value& value, std::string_view what) {
  const json::object* object = value.if_object();
  const std::string_view type =
      object != nullptr ? string_member(*object, "type") : std::string_view();
  if (type.empty()) return invalid_argument("{}: a pre_tokenizer has no type", what);
  if (type == "Sequence") {
    const json::value* list = object->if_contains("pretokenizers");
    if (list == nullptr || !list->is_array()) {
      return invalid_argument("{}: a Sequence has no array \"pretokenizers\"", what);
    }
    for (const json::value& step : list->get_array()) FOVEA_TRY_STATUS(add_json(step, what));
    return {};
  }
  if (byte_level_) {
    return error(ErrorCode::kUnsupported,
                 "{}: the pre_tokenizer {} follows ByteLevel; ByteLevel must be last", what, type);
  }
  if (steps_.size() >= kMaxSteps) {
    return invalid_argument("{}: the pre_tokenizer has more than {} steps", what, kMaxSteps);
  }
  if (type == "ByteLevel") return add_byte_level(*object, what);
  if (type == "Split") return add_split(*object, what);
  if (type == "Digits") {
    const auto single = bool_member(*object, "individual_digits", false);
    if (!single) return invalid_argument("{}: \"individual_digits\" is not a boolean", what);
    return add_regex(R"(\p{N})", *single ? SplitBehavior::kIsolated : SplitBehavior::kContiguous,
                     false, what);
  }
  if (type == "Punctuation") {
    const bool given = object->contains("behavior");
    const auto behavior =
        given ? behavior_of(object->if_contains("behavior")) : SplitBehavior::kIsolated;
    if (!behavior) return invalid_argument("{}: Punctuation has an unknown behavior", what);
    return add_regex(kPunctuation, *behavior, false, what);
  }
  if (type == "Whitespace") {
    return add_regex(fmt::format("[{0}]+|[^{0}\\s]+", kAnnexWordSet), SplitBehavior::kRemoved, true,
                     what);
  }
  if (type == "WhitespaceSplit") return add_regex(R"(\s)", SplitBehavior::kRemoved, false, what);
  if (type == "CharDelimiterSplit" && !string_member(*object, "delimiter").empty()) {
    steps_.push_back({Kind::kLiteral, SplitBehavior::kRemoved, false, nullptr,
                      std::string(string_member(*object, "delimiter"))});
    return {};
  }
  return error(ErrorCode::kUnsupported, "{}: the pre_tokenizer {} is not supported", what, type);
}

Status PreTokenizer::add_byte_level(const json::object& object, std::string_view what) {
  // Both are on when absent; old files have no use_regex.
  const auto prefix = bool_member(object, "add_prefix_space", true);
  const auto use_regex = bool_member(object, "use_regex", true);
  if (!prefix || !use_regex)
    return invalid_argument("{}: ByteLevel has an option that is not a boolean", what);
  if (*prefix) steps_.push_back({Kind::kPrefixSpace, SplitBehavior::kIsolated, false, nullptr, {}});
  if (*use_regex) steps_.push_back({Kind::kGpt2, SplitBehavior::kIsolated, false, nullptr, {}});
  byte_level_ = true;
  return {};
}

Status PreTokenizer::add_split(const json::object& object, std::string_view what) {
  const auto behavior = behavior_of(object.if_contains("behavior"));
  const auto invert = bool_member(object, "invert", false);
  const json::value* pattern = object.if_contains("pattern");
  if (!behavior || !invert || pattern == nullptr || !pattern->is_object()) {
    return invalid_argument(
        "{}: a Split needs \"pattern\", a known \"behavior\" and a boolean \"invert\"", what);
  }
  if (const auto regex = string_member(pattern->get_object(), "Regex"); !regex.empty()) {
    return add_regex(regex, *behavior, *invert, what);
  }
  const auto literal = string_member(pattern->get_object(), "String");
  if (literal.empty())
    return invalid_argument("{}: a Split's pattern is neither a Regex nor a String", what);
  steps_.push_back({Kind::kLiteral, *behavior, *invert, nullptr, std::string(literal)});
  return {};
}

Status PreTokenizer::add_regex(std::string_view pattern, SplitBehavior behavior, bool invert,
                               std::string_view what) {
  // The GPT-2 pattern leaves nothing unmatched: removing what it does not match is isolating what
  // it does.
  const bool isolates =
      invert ? behavior == SplitBehavior::kRemoved : behavior == SplitBehavior::kIsolated;
  if (pattern == kGpt2Pattern && isolates) {
    steps_.push_back({Kind::kGpt2, SplitBehavior::kIsolated, false, nullptr, {}});
    return {};
  }
  FOVEA_TRY(Regex regex, Regex::compile(pattern, what));
  steps_.push_back(
      {Kind::kRegex, behavior, invert, std::make_shared<const Regex>(std::move(regex)), {}});
  return {};
}

void PreTokenizer::split(std::string_view text, Pieces& pieces) const {
  const std::size_t first = pieces.views.size();
  pieces.views.push_back(text);
  for (const Step& step : steps_) {
    const std::vector<std::string_view> before(
        pieces.views.begin() + static_cast<std::ptrdiff_t>(first), pieces.views.end());
    pieces.views.resize(first);
    for (const std::string_view piece : before) apply(step, piece, pieces);
  }
}

void PreTokenizer::apply(const Step& step, std::string_view text, Pieces& pieces) {
  if (step.kind == Kind::kPrefixSpace) {
    if (text.front() != ' ') text = pieces.owned.emplace_back(" " + std::string(text));
    pieces.views.push_back(text);
    return;
  }
  if (step.kind == Kind::kGpt2) {
    while (!text.empty()) {
      const std::size_t length = gpt2_piece_length(text);
      pieces.views.push_back(text.substr(0, length));
      text.remove_prefix(length);
    }
    return;
  }
  auto runs =
      step.kind == Kind::kRegex ? regex_runs(*step.regex, text) : literal_runs(step.literal, text);
  if (step.invert) {
    for (Run& run : runs) run.is_match = !run.is_match;
  }
  group_runs(runs, step.behavior);
  for (const Run& run : runs) {
    if (run.end > run.begin) pieces.views.push_back(text.substr(run.begin, run.end - run.begin));
  }
}

}  // namespace fovea
