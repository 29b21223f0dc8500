#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "io/regex.h"

namespace fovea {
namespace {

// White_Space; PCRE2's \s has U+180E as well.
constexpr std::string_view kSpaceSet =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotSpaceSet =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
    R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
// Oniguruma's word characters; PCRE2's \w lacks marks.
constexpr std::string_view kWordSet = R"(\p{L}\p{M}\p{N}\p{Pc})";

// Walks over a pattern once; `fail` keeps the first thing that cannot be translated.
class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  bool run() {
    while (at_ < pattern_.size() && problem_.empty()) {
      const char c = pattern_[at_];
      if (c == '\\') {
        escape();
      } else if (in_class_) {
        class_char(c);
      } else if (c == '[') {
        open_class();
      } else if (c == '(') {
        group();
      } else if (c == '{') {
        interval();
      } else {
        copy(1);
      }
    }
    return problem_.empty();
  }

  std::string take_output() { return std::move(out_); }
  const std::string& problem() const { return problem_; }

 private:
  char peek(std::size_t ahead) const {
    return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0';
  }
  void copy(std::size_t count) {
    out_ += pattern_.substr(at_, count);
    at_ += count;
  }
  void replace(std::size_t count, std::string_view text) {
    out_ += text;
    at_ += count;
  }
  void fail(std::string_view what) { problem_ = fmt::format("{} at byte {}", what, at_); }

  // Stands for a set inside [...] or alone.
  void set(std::string_view inside, bool negated) {
    if (in_class_) return replace(2, inside);
    replace(2, negated ? "[^" : "[");
    out_ += inside;
    out_ += ']';
  }

  void escape() {
    const char c = peek(1);
    translate_escape(c);
    // A hyphen behind a set stands for itself in Oniguruma and is a malformed range in PCRE2.
    const bool is_set = std::string_view("sSwdDpP").find(c) != std::string_view::npos;
    if (in_class_ && is_set && peek(0) == '-') replace(1, "\\-");
  }

  void translate_escape(char c) {
    switch (c) {
      case 's':
        return set(kSpaceSet, false);
      case 'S':
        return in_class_ ? set(kNotSpaceSet, false) : set(kSpaceSet, true);
      case 'w':
        return set(kWordSet, false);
      case 'W':
        return in_class_ ? fail("\\W inside a set") : set(kWordSet, true);
      case 'd':
        return replace(2, "\\p{Nd}");
      case 'D':
        return replace(2, "\\P{Nd}");
      case 'v':
        return replace(2, "\\x{b}");
      case 'p':
      case 'P':
        return property();
      case 'u':
        return code_unit();
      case 'x':
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e':
        return copy(2);
      case 'A':
      case 'z':
        return in_class_ ? fail("an anchor inside a set") : copy(2);
      default:
        break;
    }
    if (c == '\0' || std::isalnum(static_cast<unsigned char>(c)) != 0) {
      return fail(fmt::format("the escape \\{}", c == '\0' ? ' ' : c));
    }
    copy(2);
  }

  // \p{L}, \p{Lu}, \p{^L}: categories mean the same in both libraries; names of scripts do too.
  void property() {
    const std::size_t close = pattern_.find('}', at_);
    if (peek(2) != '{' || close == std::string_view::npos) return fail("a property without braces");
    copy(close - at_ + 1);
  }

  // \uHHHH
  void code_unit() {
    const std::string_view digits = pattern_.substr(std::min(at_ + 2, pattern_.size()), 4);
    const bool hex =
        digits.size() == 4 && std::all_of(digits.begin(), digits.end(),
                                          [](unsigned char d) { return std::isxdigit(d) != 0; });
    if (!hex) return fail("\\u without four hexadecimal digits");
    replace(6, fmt::format("\\x{{{}}}", digits));
  }

  void open_class() {
    in_class_ = true;
    copy(1);
    if (peek(0) == '^') copy(1);
    if (peek(0) == ']') copy(1);  // a literal bracket in both libraries
  }

  void class_char(char c) {
    if (c == '[') return fail("a set inside a set");
    if (c == '&' && peek(1) == '&') return fail("an intersection of sets");
    if (c == ']') in_class_ = false;
    copy(1);
  }

  void group() {
    if (peek(1) == '*') return fail("a (*verb)");
    if (peek(1) != '?') return copy(1);
    for (const std::string_view known : {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:"}) {
      if (pattern_.substr(at_, known.size()) == known) return copy(known.size());
    }
    // Bare options reach over the alternatives that follow in Oniguruma only; at the front there is
    // no difference.
    if (at_ == 0 && pattern_.substr(0, 4) == "(?i)") return copy(4);
    fail("a group of this kind");
  }

  void interval() {
    const std::size_t close = pattern_.find('}', at_);
    const std::string_view inside = close == std::string_view::npos
                                        ? std::string_view()
                                        : pattern_.substr(at_ + 1, close - at_ - 1);
    const bool numbers = !inside.empty() &&
                         inside.find_first_not_of("0123456789,") == std::string_view::npos &&
                         std::count(inside.begin(), inside.end(), ',') <= 1 && inside != ",";
    if (!numbers) return replace(1, "\\{");
    const char after = peek(inside.size() + 2);
    // {n,m}+ repeats the repetition in Ruby and is possessive in PCRE2; {n}? is optional there,
    // lazy here.
    if (after == '+') return fail("a + after an interval");
    if (after == '?' && inside.find(',') == std::string_view::npos)
      return fail("a ? after an interval");
    if (inside.front() == ',') return replace(2, "{0,");
    copy(inside.size() + 2);
  }

  std::string_view pattern_;
  std::size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
  std::string problem_;
};

}  // namespace

Result<std::string> translate_pattern(std::string_view pattern, std::string_view what) {
  Translator translator(pattern);
  if (!translator.run()) {
    return error(ErrorCode::kUnsupported, "{}: the pattern {} uses {}, which is not supported",
                 what, pattern, translator.problem());
  }
  return translator.take_output();
}

}  // namespace fovea
