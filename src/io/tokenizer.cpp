#include "io/tokenizer.h"

#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "base/try.h"
#include "io/byte_level.h"
#include "io/gpt2_scanner.h"
#include "io/tokenizer_spec.h"
#include "io/utf8.h"

namespace fovea {

struct Tokenizer::Tables {
  enum class Kind : std::uint8_t { kUnknown, kOrdinary, kSpecial };

  Bpe bpe;
  AddedTokenMatcher added;
  PreTokenizer pre_tokenizer;
  std::unordered_map<std::string, std::int32_t> added_ids;  // non-special
  std::unordered_map<std::string, std::int32_t> special_ids;
  std::string blob;                    // bytes of all tokens by id
  std::vector<std::uint32_t> offsets;  // [size + 1] into blob
  std::vector<Kind> kinds;             // [size]

  bool knows(TokenId id) const {
    return id.value() >= 0 && static_cast<std::size_t>(id.value()) < kinds.size();
  }
};

namespace {

// A token as decode() sees it.
struct Entry {
  std::int32_t id;
  std::string_view bytes;
  bool special;
};

void encode_text(const Bpe& bpe, const PreTokenizer& pre_tokenizer, std::string_view text,
                 Bpe::Scratch& scratch, std::vector<TokenId>& ids) {
  if (pre_tokenizer.is_plain_gpt2()) {  // no list of pieces in between
    while (!text.empty()) {
      const std::size_t length = gpt2_piece_length(text);
      bpe.encode(text.substr(0, length), scratch, ids);
      text.remove_prefix(length);
    }
    return;
  }
  PreTokenizer::Pieces pieces;
  pre_tokenizer.split(text, pieces);
  for (const std::string_view piece : pieces.views) bpe.encode(piece, scratch, ids);
}

}  // namespace

Result<Tokenizer> Tokenizer::build(TokenizerSpec spec, std::string_view what) {
  std::vector<Entry> entries;
  entries.reserve(spec.bpe.tokens.size() + spec.decode_only.size() + spec.added.size());
  for (const BpeSpec::Token& token : spec.bpe.tokens)
    entries.push_back({token.id, token.bytes, false});
  for (const TokenizerSpec::Undecoded& token : spec.decode_only)
    entries.push_back({token.id, token.bytes, false});
  std::unordered_map<std::string, std::int32_t> added_ids;
  std::unordered_map<std::string, std::int32_t> special_ids;
  std::vector<std::string> added_bytes;
  added_bytes.reserve(spec.added.size());  // entries view them
  for (const AddedToken& token : spec.added) {
    (token.special ? special_ids : added_ids).emplace(token.content, token.id);
    // The decoder treats added tokens like all others: what the byte alphabet can spell is bytes.
    added_bytes.push_back(byte_level_bytes(token.content).value_or(token.content));
    entries.push_back({token.id, added_bytes.back(), token.special});
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.id < b.id; });
  std::string blob;
  std::vector<std::uint32_t> offsets;
  std::vector<Tables::Kind> kinds;
  const Entry* previous = nullptr;
  for (const Entry& entry : entries) {
    if (entry.id < 0 || entry.id > kMaxTokenId) {
      return invalid_argument("{}: the id {} is not in 0..{}", what, entry.id, kMaxTokenId);
    }
    if (previous != nullptr && previous->id == entry.id) {
      // An added token may be in the vocabulary as well.
      if (previous->bytes == entry.bytes && !previous->special && !entry.special) continue;
      return invalid_argument("{}: two tokens have the id {}", what, entry.id);
    }
    previous = &entry;
    offsets.resize(static_cast<std::size_t>(entry.id) + 1, static_cast<std::uint32_t>(blob.size()));
    kinds.resize(static_cast<std::size_t>(entry.id) + 1, Tables::Kind::kUnknown);
    kinds.back() = entry.special ? Tables::Kind::kSpecial : Tables::Kind::kOrdinary;
    if (!entry.special) blob += entry.bytes;
  }
  if (kinds.empty()) return invalid_argument("{}: the vocabulary is empty", what);
  offsets.push_back(static_cast<std::uint32_t>(blob.size()));
  return Tokenizer(std::make_shared<const Tables>(
      Tables{Bpe(spec.bpe), AddedTokenMatcher(spec.added), std::move(spec.pre_tokenizer),
             std::move(added_ids), std::move(special_ids), std::move(blob), std::move(offsets),
             std::move(kinds)}));
}

std::int32_t Tokenizer::size() const { return static_cast<std::int32_t>(tables_->kinds.size()); }

std::vector<TokenId> Tokenizer::encode(std::string_view utf8) const {
  std::string repaired;
  if (!is_valid_utf8(utf8)) {
    append_lossy_utf8(utf8, Utf8End::kComplete, repaired);
    utf8 = repaired;
  }
  std::vector<TokenId> ids;
  if (utf8.empty()) return ids;
  ids.reserve(utf8.size() / 3);
  Bpe::Scratch scratch;
  const Tables& t = *tables_;
  if (t.added.empty()) {
    encode_text(t.bpe, t.pre_tokenizer, utf8, scratch, ids);
    return ids;
  }
  std::vector<AddedTokenMatcher::Segment> segments;
  t.added.split(utf8, segments);
  for (const auto& segment : segments) {
    if (segment.token) {
      ids.push_back(*segment.token);
    } else {
      encode_text(t.bpe, t.pre_tokenizer, segment.text, scratch, ids);
    }
  }
  return ids;
}

std::string_view Tokenizer::token_bytes(TokenId id) const {
  if (!tables_->knows(id)) return {};
  const auto i = static_cast<std::size_t>(id.value());
  return std::string_view(tables_->blob)
      .substr(tables_->offsets[i], tables_->offsets[i + 1] - tables_->offsets[i]);
}

std::string Tokenizer::decode(std::span<const TokenId> ids) const {
  std::string bytes;
  for (const TokenId id : ids) bytes += token_bytes(id);
  if (is_valid_utf8(bytes)) return bytes;
  std::string text;
  append_lossy_utf8(bytes, Utf8End::kComplete, text);
  return text;
}

bool Tokenizer::is_special(TokenId id) const {
  return tables_->knows(id) &&
         tables_->kinds[static_cast<std::size_t>(id.value())] == Tables::Kind::kSpecial;
}

std::optional<TokenId> Tokenizer::find(std::string_view bytes) const {
  if (const std::int32_t id = tables_->bpe.find(bytes); id != BpeSpec::kNone) return TokenId(id);
  const auto added = tables_->added_ids.find(std::string(bytes));
  if (added == tables_->added_ids.end()) return std::nullopt;
  return TokenId(added->second);
}

std::optional<TokenId> Tokenizer::find_special(std::string_view spelling) const {
  const auto special = tables_->special_ids.find(std::string(spelling));
  if (special == tables_->special_ids.end()) return std::nullopt;
  return TokenId(special->second);
}

std::string IncrementalDecoder::push(TokenId id) {
  pending_ += tokenizer_.token_bytes(id);
  std::string text;
  pending_.erase(0, append_lossy_utf8(pending_, Utf8End::kMore, text));
  return text;
}

std::string IncrementalDecoder::finish() {
  std::string text;
  append_lossy_utf8(pending_, Utf8End::kComplete, text);
  pending_.clear();
  return text;
}

}  // namespace fovea
