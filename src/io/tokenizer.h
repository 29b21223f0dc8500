#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fovea/result.h"

#include "base/ids.h"

namespace fovea {

struct TokenizerSpec;

/// Byte-level byte-pair encoding: text to token ids and back, equal to the PyPI package
/// `tokenizers` with `encode_special_tokens` set. Immutable; copies share their tables; usable from
/// several threads.
class Tokenizer {
 public:
  /// `path` is a tokenizer.json, a vocab.json or merges.txt (the other beside it), a *.tiktoken
  /// file of ranks, or a folder that holds tokenizer.json, vocab.json and merges.txt, or exactly
  /// one *.tiktoken, looked for in this order. Files have at most 64 MB and ids are below 4194304.
  /// Errors name the file: kNotFound when there is none, kInvalidArgument for malformed ones,
  /// kUnsupported for parts that would make ids differ (normalizers, other models, a post_processor
  /// that adds ids).
  static Result<Tokenizer> load(const std::filesystem::path& path);

  /// A tokenizer.json that is in memory. `what` names it in errors.
  static Result<Tokenizer> parse_json(std::string_view text, std::string_view what);

  /// Highest id + 1.
  std::int32_t size() const;

  /// The ids of a text. Invalid UTF-8 counts as U+FFFD, one for each maximal invalid subsequence,
  /// as a Python caller's errors="replace" has it. The spelling of a special token is plain text:
  /// no text gives a special id.
  std::vector<TokenId> encode(std::string_view utf8) const;

  /// The text of `ids`, well-formed UTF-8: special and unknown ids are skipped, the bytes of all
  /// others joined and decoded once, each maximal invalid subsequence becoming U+FFFD.
  std::string decode(std::span<const TokenId> ids) const;

  /// What a token contributes to decode(), before UTF-8 is looked at. Empty for special and unknown
  /// ids.
  std::string_view token_bytes(TokenId id) const;

  bool is_special(TokenId id) const;

  /// The ordinary token of exactly these bytes, or the non-special added token of this spelling.
  std::optional<TokenId> find(std::string_view bytes) const;

  /// The special token of this spelling.
  std::optional<TokenId> find_special(std::string_view spelling) const;

  /// Takes a description apart into tables. Errors: kInvalidArgument for ids that are out of range
  /// or doubled.
  static Result<Tokenizer> build(TokenizerSpec spec, std::string_view what);

 private:
  struct Tables;
  explicit Tokenizer(std::shared_ptr<const Tables> tables) : tables_(std::move(tables)) {}
  std::shared_ptr<const Tables> tables_;
};

/// Decodes one token at a time without ever giving half a character: the bytes of an unfinished one
/// wait for the next token. All that push() and finish() return, joined, is Tokenizer::decode of
/// all ids. One thread at a time.
class IncrementalDecoder {
 public:
  explicit IncrementalDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  /// The text that is certain after `id`; may be empty.
  std::string push(TokenId id);

  /// The rest: an unfinished character becomes U+FFFD. The decoder is then as new.
  std::string finish();

 private:
  Tokenizer tokenizer_;
  std::string pending_;  // at most three bytes between calls
};

}  // namespace fovea
