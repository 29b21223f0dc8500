#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <utility>
#include <vector>

#include "fovea/result.h"

#include "base/json.h"
#include "io/added_tokens.h"
#include "io/bpe.h"
#include "io/pre_tokenizer.h"

namespace fovea {

inline constexpr std::size_t kMaxTokenizerBytes = 64 << 20;  ///< of each file
inline constexpr std::int32_t kMaxTokenId = (1 << 22) - 1;
inline constexpr std::size_t kMaxAddedTokens = 65'536;
inline constexpr std::size_t kMaxAddedTokenBytes = 1'024;

/// What a tokenizer's files say, whichever they are.
struct TokenizerSpec {
  /// A vocabulary entry that only decode() knows: its spelling is not made of the byte alphabet.
  struct Undecoded {
    std::int32_t id;
    std::string bytes;
  };
  BpeSpec bpe;
  std::vector<Undecoded> decode_only;
  std::vector<AddedToken> added;
  PreTokenizer pre_tokenizer;
};

/// Reads a parsed tokenizer.json. Errors as Tokenizer::load.
Result<TokenizerSpec> read_tokenizer_json(const json::value& root, std::string_view what);

/// Reads GPT-2's pair of files, and added_tokens.json where it lies beside them.
Result<TokenizerSpec> read_vocab_and_merges(const std::filesystem::path& vocab,
                                            const std::filesystem::path& merges);

/// Reads ranks: a line a token, base64 of its bytes and its rank, which is its id. The pattern is
/// GPT-2's, and a vocabulary of GPT-2's size has <|endoftext|> behind it.
Result<TokenizerSpec> read_tiktoken(const std::filesystem::path& path);
Result<TokenizerSpec> parse_tiktoken(std::string_view text, std::string_view what);

/// Fills `spec.bpe.tokens` and `spec.decode_only` from a vocabulary object (spelling -> id).
/// `spec.added` comes first: special ids stay out of the tables that encode.
Status add_vocabulary(const json::object& vocabulary, std::string_view what, TokenizerSpec& spec);

/// Two spellings that merge, in the order of rank.
using MergePairs = std::vector<std::pair<std::string_view, std::string_view>>;

/// Fills `spec.bpe.merges`. Errors: kInvalidArgument for a merge whose parts or result are not in
/// the vocabulary.
Status add_merges(const MergePairs& merges, const json::object& vocabulary, std::string_view what,
                  TokenizerSpec& spec);

}  // namespace fovea
