#define PCRE2_CODE_UNIT_WIDTH 8
#include "io/regex.h"

#include <array>
#include <optional>
#include <pcre2.h>
#include <utility>

#include "base/error.h"
#include "base/try.h"
#include "io/utf8.h"

namespace fovea {
namespace {

// Backtracking steps of one match. A pre-tokenizer's pattern needs a few; a run of white space at
// most its length.
constexpr std::uint32_t kMatchLimit = 50'000'000;
constexpr std::uint32_t kHeapLimitKib = 256 * 1024;
constexpr std::size_t kMaxPatternBytes = 64 * 1024;

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() {
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
};

Regex::Regex(std::unique_ptr<Code> code) : code_(std::move(code)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

Result<Regex> Regex::compile(std::string_view pattern, std::string_view what) {
  if (pattern.size() > kMaxPatternBytes) {
    return invalid_argument("{}: a pattern has {} bytes; at most {} are read", what, pattern.size(),
                            kMaxPatternBytes);
  }
  FOVEA_TRY(const std::string translated, translate_pattern(pattern, what));
  auto code = std::make_unique<Code>();
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  if (context == nullptr)
    return error(ErrorCode::kResourceExhausted, "{}: no memory for a pattern", what);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  int failure = 0;
  std::size_t at = 0;
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                             &failure, &at, context);
  pcre2_compile_context_free(context);
  if (code->code == nullptr) {
    return invalid_argument("{}: the pattern {} is malformed: {}", what, pattern,
                            pcre2_message(failure));
  }
  // Without the just-in-time compiler (SELinux, odd processors) the interpreter does the same,
  // slower.
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);
  code->context = pcre2_match_context_create(nullptr);
  if (code->context == nullptr)
    return error(ErrorCode::kResourceExhausted, "{}: no memory for a pattern", what);
  pcre2_set_match_limit(code->context, kMatchLimit);
  pcre2_set_heap_limit(code->context, kHeapLimitKib);
  return Regex(std::move(code));
}

struct Regex::Searcher::State {
  const Code& code;
  std::string_view text;
  pcre2_match_data* data;
  std::size_t from = 0;
  std::optional<std::size_t> previous_end;
};

Regex::Searcher::Searcher(const Regex& regex, std::string_view text)
    : state_(new State{*regex.code_,
                       text,
                       pcre2_match_data_create_from_pattern(regex.code_->code, nullptr),
                       0,
                       {}}) {}

Regex::Searcher::~Searcher() { pcre2_match_data_free(state_->data); }

bool Regex::Searcher::next(Match& match) {
  State& s = *state_;
  if (s.data == nullptr) return false;
  while (s.from <= s.text.size()) {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(s.text.data());
    int count = pcre2_match(s.code.code, subject, s.text.size(), s.from, PCRE2_NO_UTF_CHECK, s.data,
                            s.code.context);
    if (count ==
        PCRE2_ERROR_JIT_STACKLIMIT) {  // a long match: the interpreter keeps its state on the heap
      count = pcre2_match(s.code.code, subject, s.text.size(), s.from,
                          PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s.data, s.code.context);
    }
    if (count < 0) return false;
    const std::size_t* places = pcre2_get_ovector_pointer(s.data);
    match = {places[0], places[1]};
    if (match.begin > match.end)
      return false;  // only \K in a lookahead can do this, and it is refused
    const bool empty_again = match.begin == match.end && s.previous_end == match.end;
    if (!empty_again) {
      s.from = match.end;
      s.previous_end = match.end;
      return true;
    }
    s.from += s.from < s.text.size() ? decode_valid_utf8_char(s.text.substr(s.from)).length : 1;
  }
  return false;
}

}  // namespace fovea
