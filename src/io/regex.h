#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "fovea/result.h"

namespace fovea {

/// Rewrites a pattern of the Oniguruma library (Ruby syntax, which the PyPI package `tokenizers`
/// uses) so that PCRE2 reads it the same way: \s, \w and their complements become explicit sets,
/// because the two libraries draw them differently. Errors: kUnsupported for syntax that means
/// something else in PCRE2 and has no simple translation; it names the place. `what` names the
/// source.
Result<std::string> translate_pattern(std::string_view pattern, std::string_view what);

/// A compiled pattern over UTF-8 text. Immutable: usable from several threads, each with its own
/// Searcher. Categories are those of the PCRE2 library's Unicode version (14 in PCRE2 10.42).
class Regex {
 public:
  /// Compiles an Oniguruma pattern. Errors: those of translate_pattern, kInvalidArgument for a
  /// malformed pattern.
  static Result<Regex> compile(std::string_view pattern, std::string_view what);

  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  struct Match {
    std::size_t begin = 0;
    std::size_t end = 0;
  };

  /// Finds the matches of one text, one after the other. The regex and the text must outlive it.
  class Searcher {
   public:
    /// `text` is well-formed UTF-8.
    Searcher(const Regex& regex, std::string_view text);
    ~Searcher();
    Searcher(const Searcher&) = delete;
    Searcher& operator=(const Searcher&) = delete;

    /// The next match, not overlapping the one before; an empty match never follows directly upon a
    /// match. False at the end, and when a match takes more steps than the limit, so that a hostile
    /// pattern costs no hours: the rest of the text then counts as unmatched.
    bool next(Match& match);

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

 private:
  struct Code;
  explicit Regex(std::unique_ptr<Code> code);
  std::unique_ptr<Code> code_;
};

}  // namespace fovea
