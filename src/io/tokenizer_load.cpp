#include <system_error>

#include "base/error.h"
#include "base/mapped_file.h"
#include "base/try.h"
#include "io/folder.h"
#include "io/text_lines.h"
#include "io/tokenizer.h"
#include "io/tokenizer_spec.h"
#include "io/utf8.h"

namespace fovea {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEndOfText = "<|endoftext|>";

// The one file of `folder` that load() should read.
Result<fs::path> find_tokenizer(const fs::path& folder) {
  if (file_exists(folder / "tokenizer.json")) return folder / "tokenizer.json";
  if (file_exists(folder / "vocab.json") && file_exists(folder / "merges.txt"))
    return folder / "vocab.json";
  std::vector<fs::path> found;
  FOVEA_TRY(const std::vector<fs::path> paths, list_folder(folder));
  for (const fs::path& path : paths) {
    if (path.extension() == ".tiktoken") found.push_back(path);
  }
  if (found.size() == 1) return found.front();
  if (found.empty()) {
    return error(ErrorCode::kNotFound,
                 "{} holds no tokenizer: no tokenizer.json, no vocab.json with merges.txt, no "
                 "*.tiktoken",
                 folder.string());
  }
  return invalid_argument("{} holds {} tiktoken files ({}, {}, ...); name one of them",
                          folder.string(), found.size(), found[0].filename().string(),
                          found[1].filename().string());
}

// `a b` a line; a first line "#version" and empty lines are skipped.
Result<MergePairs> parse_merges(std::string_view text, std::string_view what) {
  MergePairs pairs;
  TextLines lines(text);
  while (lines.next()) {
    const std::string_view line = lines.line();
    if (line.empty() || line.starts_with("#version")) continue;
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
      return invalid_argument("{}: line {} is not two tokens with a space between them", what,
                              lines.number());
    }
    pairs.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  return pairs;
}

// added_tokens.json: spelling -> id, what the older Moondream releases put runs of spaces into.
Status read_added_file(const fs::path& path, TokenizerSpec& spec) {
  if (!file_exists(path)) return {};
  FOVEA_TRY(const json::value root, json::parse_file(path, kMaxTokenizerBytes));
  if (!root.is_object()) return invalid_argument("{} is not an object", path.string());
  for (const auto& entry : root.get_object()) {
    const json::value& id = entry.value();
    const bool good = id.is_int64() && id.get_int64() >= 0 && id.get_int64() <= kMaxTokenId &&
                      !entry.key().empty() && entry.key().size() <= kMaxAddedTokenBytes &&
                      spec.added.size() < kMaxAddedTokens;
    if (!good)
      return invalid_argument("{}: \"{}\" has no id in 0..{}", path.string(),
                              std::string_view(entry.key()), kMaxTokenId);
    const bool special = entry.key() == kEndOfText;
    const bool there = special && !spec.added.empty();
    if (!there)
      spec.added.push_back(
          {static_cast<std::int32_t>(id.get_int64()), entry.key(), special, false, false, true});
  }
  return {};
}

Result<TokenizerSpec> read_file(const fs::path& path) {
  const fs::path folder = path.parent_path();
  if (path.extension() == ".tiktoken") return read_tiktoken(path);
  if (path.filename() == "vocab.json" || path.filename() == "merges.txt") {
    return read_vocab_and_merges(folder / "vocab.json", folder / "merges.txt");
  }
  FOVEA_TRY(const json::value root, json::parse_file(path, kMaxTokenizerBytes));
  return read_tokenizer_json(root, path.string());
}

}  // namespace

Result<TokenizerSpec> read_vocab_and_merges(const fs::path& vocab, const fs::path& merges) {
  FOVEA_TRY(const json::value root, json::parse_file(vocab, kMaxTokenizerBytes));
  if (!root.is_object())
    return invalid_argument("{} is not an object of spellings and ids", vocab.string());
  FOVEA_TRY(const MappedFile file, MappedFile::open(merges));
  if (file.bytes().size() > kMaxTokenizerBytes) {
    return invalid_argument("{} has {} bytes; at most {} are read", merges.string(),
                            file.bytes().size(), kMaxTokenizerBytes);
  }
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                              file.bytes().size());
  if (!is_valid_utf8(text)) return invalid_argument("{} is not UTF-8", merges.string());
  const json::object& vocabulary = root.get_object();
  TokenizerSpec spec;
  spec.pre_tokenizer = PreTokenizer::gpt2();
  if (const json::value* end = vocabulary.if_contains(kEndOfText);
      end != nullptr && end->is_int64()) {
    spec.added.push_back({static_cast<std::int32_t>(end->get_int64()), std::string(kEndOfText),
                          true, false, false, false});
  }
  FOVEA_TRY_STATUS(read_added_file(vocab.parent_path() / "added_tokens.json", spec));
  FOVEA_TRY(const MergePairs pairs, parse_merges(text, merges.string()));
  FOVEA_TRY_STATUS(add_vocabulary(vocabulary, vocab.string(), spec));
  FOVEA_TRY_STATUS(add_merges(pairs, vocabulary, merges.string(), spec));
  return spec;
}

Result<Tokenizer> Tokenizer::load(const fs::path& path) {
  std::error_code failure;
  const fs::file_status status = fs::status(path, failure);
  if (!fs::exists(status)) return error(ErrorCode::kNotFound, "there is no {}", path.string());
  fs::path file = path;
  if (fs::is_directory(status)) {
    FOVEA_TRY(file, find_tokenizer(path));
  }
  FOVEA_TRY(TokenizerSpec spec, read_file(file));
  return build(std::move(spec), file.string());
}

Result<Tokenizer> Tokenizer::parse_json(std::string_view text, std::string_view what) {
  if (text.size() > kMaxTokenizerBytes) {
    return invalid_argument("{} has {} bytes; at most {} are read", what, text.size(),
                            kMaxTokenizerBytes);
  }
  FOVEA_TRY(const json::value root, json::parse(text, what));
  FOVEA_TRY(TokenizerSpec spec, read_tokenizer_json(root, what));
  return build(std::move(spec), what);
}

}  // namespace fovea
