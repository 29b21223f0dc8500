#include <array>
#include <charconv>
#include <optional>
#include <unordered_map>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/try.h"
#include "io/text_lines.h"
#include "io/tokenizer_spec.h"

namespace fovea {
namespace {

// The longest token of the published vocabularies has 128 bytes. Every way to cut a token in two is
// looked up.
constexpr std::size_t kMaxTokenBytes = 256;
constexpr std::size_t kGpt2Ranks = 50'256;

int base64_value(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  return c == '/' ? 63 : -1;
}

// Padded base64, or nothing when it is malformed.
std::optional<std::string> decode_base64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  if (text.size() % 4 == 1) return std::nullopt;
  std::string bytes;
  std::uint32_t bits = 0;
  int num_bits = 0;
  for (const char c : text) {
    const int value = base64_value(c);
    if (value < 0) return std::nullopt;
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    num_bits += 6;
    if (num_bits >= 8) {
      num_bits -= 8;
      bytes += static_cast<char>(bits >> num_bits & 0xffu);
    }
  }
  return bytes;
}

std::optional<BpeSpec::Token> parse_line(std::string_view line) {
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  auto bytes = decode_base64(line.substr(0, space));
  const std::string_view number = line.substr(space + 1);
  std::int32_t rank = -1;
  const auto [end, failure] = std::from_chars(number.data(), number.data() + number.size(), rank);
  const bool is_number = failure == std::errc() && end == number.data() + number.size();
  if (!bytes || bytes->empty() || bytes->size() > kMaxTokenBytes || !is_number || rank < 0 ||
      rank > kMaxTokenId) {
    return std::nullopt;
  }
  return BpeSpec::Token{rank, std::move(*bytes)};
}

// The rule of such files: two neighbours merge when their bytes together are a token, and its rank
// is the merge's. So every way to cut a token into two tokens is a merge.
void add_merges_of_ranks(const std::unordered_map<std::string_view, std::int32_t>& ranks,
                         BpeSpec& spec) {
  for (const BpeSpec::Token& token : spec.tokens) {
    const std::string_view bytes = token.bytes;
    for (std::size_t cut = 1; cut < bytes.size(); ++cut) {
      const auto left = ranks.find(bytes.substr(0, cut));
      if (left == ranks.end()) continue;
      const auto right = ranks.find(bytes.substr(cut));
      if (right == ranks.end()) continue;
      spec.merges.push_back(
          {left->second, right->second, token.id, static_cast<std::uint32_t>(token.id)});
    }
  }
}

}  // namespace

Result<TokenizerSpec> parse_tiktoken(std::string_view text, std::string_view what) {
  TokenizerSpec spec;
  spec.pre_tokenizer = PreTokenizer::gpt2();
  TextLines lines(text);
  while (lines.next()) {
    const std::string_view line = lines.line();
    if (line.empty()) continue;
    auto token = parse_line(line);
    if (!token) {
      return invalid_argument(
          "{}: line {} is not the base64 of 1 to {} bytes, a space and a rank of at most {}", what,
          lines.number(), kMaxTokenBytes, kMaxTokenId);
    }
    spec.bpe.tokens.push_back(std::move(*token));
  }
  std::unordered_map<std::string_view, std::int32_t> ranks;
  for (const BpeSpec::Token& token : spec.bpe.tokens) {
    if (!ranks.emplace(token.bytes, token.id).second) {
      return invalid_argument("{}: the token of rank {} comes twice", what, token.id);
    }
  }
  add_merges_of_ranks(ranks, spec.bpe);
  if (spec.bpe.tokens.size() == kGpt2Ranks) {
    spec.added.push_back(
        {static_cast<std::int32_t>(kGpt2Ranks), "<|endoftext|>", true, false, false, false});
  }
  return spec;
}

Result<TokenizerSpec> read_tiktoken(const std::filesystem::path& path) {
  FOVEA_TRY(const MappedFile file, MappedFile::open(path));
  if (file.bytes().size() > kMaxTokenizerBytes) {
    return invalid_argument("{} has {} bytes; at most {} are read", path.string(),
                            file.bytes().size(), kMaxTokenizerBytes);
  }
  return parse_tiktoken({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()},
                        path.string());
}

}  // namespace fovea
