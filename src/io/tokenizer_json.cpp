#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "base/try.h"
#include "io/byte_level.h"
#include "io/tokenizer_spec.h"

namespace fovea {
namespace {

const json::value& null_value() {
  static const json::value null;
  return null;
}

// A member, or null when it is absent.
const json::value& member(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  return value != nullptr ? *value : null_value();
}

std::string_view type_of(const json::value& value) {
  if (!value.is_object()) return {};
  const json::value& type = member(value.get_object(), "type");
  return type.is_string() ? std::string_view(type.get_string()) : std::string_view();
}

bool is_true(const json::object& object, std::string_view name) {
  const json::value& value = member(object, name);
  return value.is_bool() && value.get_bool();
}

// Null, false, 0 and "" all mean that an option is off.
bool is_off(const json::value& value) {
  if (value.is_string()) return value.get_string().empty();
  if (value.is_bool()) return !value.get_bool();
  if (value.is_number()) return value.to_number<double>() == 0.0;
  return value.is_null();
}

std::optional<std::int32_t> token_id(const json::value& value) {
  if (!value.is_int64() || value.get_int64() < 0 || value.get_int64() > kMaxTokenId)
    return std::nullopt;
  return static_cast<std::int32_t>(value.get_int64());
}

Error bad_id(std::string_view what, std::string_view token, const json::value& id) {
  return invalid_argument("{}: the token \"{}\" has the id {}; wanted 0..{}", what, token,
                          boost::json::serialize(id), kMaxTokenId);
}

Status check_normalizer(const json::value& normalizer, std::string_view what) {
  if (normalizer.is_null()) return {};
  const std::string_view type = type_of(normalizer);
  const json::value& list =
      type == "Sequence" ? member(normalizer.get_object(), "normalizers") : null_value();
  if (list.is_array()) {
    for (const json::value& step : list.get_array()) FOVEA_TRY_STATUS(check_normalizer(step, what));
    return {};
  }
  return error(ErrorCode::kUnsupported,
               "{}: the normalizer {} is not supported; only texts as they are", what,
               type.empty() ? "without a type" : type);
}

Status check_decoder(const json::value& decoder, std::string_view what) {
  const std::string_view type = type_of(decoder);
  if (type == "ByteLevel") return {};
  const json::value& list =
      type == "Sequence" ? member(decoder.get_object(), "decoders") : null_value();
  if (list.is_array() && list.get_array().size() == 1)
    return check_decoder(list.get_array()[0], what);
  return error(ErrorCode::kUnsupported, "{}: the decoder is {}; only ByteLevel is supported", what,
               type.empty() ? "missing" : type);
}

// The models' prompts are built from ids, and text between them must not bring ids of its own.
Status check_post_processor(const json::value& post, std::string_view what) {
  const std::string_view type = type_of(post);
  if (post.is_null() || type == "ByteLevel") return {};
  if (type == "Sequence") {
    const json::value& list = member(post.get_object(), "processors");
    if (list.is_array()) {
      for (const json::value& step : list.get_array())
        FOVEA_TRY_STATUS(check_post_processor(step, what));
      return {};
    }
  }
  if (type == "TemplateProcessing") {
    const json::value& single = member(post.get_object(), "single");
    bool adds = !single.is_array();
    if (!adds) {
      for (const json::value& part : single.get_array()) {
        adds = adds || !part.is_object() || !part.get_object().contains("Sequence");
      }
      adds = adds || single.get_array().size() != 1;
    }
    if (!adds) return {};
  }
  return error(ErrorCode::kUnsupported,
               "{}: the post_processor {} adds ids to every text; the empty text must encode to "
               "nothing, because prompts place control ids themselves",
               what, type.empty() ? "without a type" : type);
}

Result<AddedToken> read_added_token(const json::value& value, std::string_view what) {
  if (!value.is_object()) return invalid_argument("{}: an added token is not an object", what);
  const json::object& object = value.get_object();
  const json::value& content = member(object, "content");
  if (!content.is_string() || content.get_string().size() > kMaxAddedTokenBytes) {
    return invalid_argument("{}: an added token has no content of at most {} bytes", what,
                            kMaxAddedTokenBytes);
  }
  AddedToken token;
  token.content = content.get_string();
  const auto id = token_id(member(object, "id"));
  if (!id) return bad_id(what, token.content, member(object, "id"));
  token.id = *id;
  token.special = is_true(object, "special");
  token.strip_left = is_true(object, "lstrip");
  token.strip_right = is_true(object, "rstrip");
  token.normalized = is_true(object, "normalized");
  if (is_true(object, "single_word") && !token.special) {
    return error(ErrorCode::kUnsupported,
                 "{}: the added token \"{}\" is a single_word, which is not supported", what,
                 token.content);
  }
  return token;
}

Status read_added_tokens(const json::value& list, std::string_view what, TokenizerSpec& spec) {
  if (list.is_null()) return {};
  if (!list.is_array()) return invalid_argument("{}: \"added_tokens\" is not an array", what);
  if (list.get_array().size() > kMaxAddedTokens) {
    return invalid_argument("{}: {} added tokens; at most {} are supported", what,
                            list.get_array().size(), kMaxAddedTokens);
  }
  std::unordered_set<std::string> seen;
  for (const json::value& value : list.get_array()) {
    FOVEA_TRY(AddedToken token, read_added_token(value, what));
    if (token.content.empty()) continue;
    if (!seen.insert(token.content).second) {
      return invalid_argument("{}: the added token \"{}\" comes twice", what, token.content);
    }
    spec.added.push_back(std::move(token));
  }
  return {};
}

Status read_merges(const json::value& list, const json::object& vocabulary, std::string_view what,
                   TokenizerSpec& spec) {
  if (!list.is_array()) return invalid_argument("{}: the model has no array \"merges\"", what);
  MergePairs pairs;
  pairs.reserve(list.get_array().size());
  for (const json::value& value : list.get_array()) {
    if (value.is_string()) {
      const std::string_view text = value.get_string();
      if (text.starts_with("#version")) continue;
      const std::size_t space = text.find(' ');
      if (space != std::string_view::npos && text.find(' ', space + 1) == std::string_view::npos) {
        pairs.emplace_back(text.substr(0, space), text.substr(space + 1));
        continue;
      }
    } else if (value.is_array() && value.get_array().size() == 2 &&
               value.get_array()[0].is_string() && value.get_array()[1].is_string()) {
      pairs.emplace_back(value.get_array()[0].get_string(), value.get_array()[1].get_string());
      continue;
    }
    return invalid_argument("{}: merge {} is neither [\"a\", \"b\"] nor \"a b\"", what,
                            pairs.size());
  }
  return add_merges(pairs, vocabulary, what, spec);
}

Status check_model(const json::object& model, std::string_view what) {
  const json::value& type = member(model, "type");
  if (!type.is_null() && !(type.is_string() && type.get_string() == "BPE")) {
    return error(ErrorCode::kUnsupported, "{}: the model is {}; only BPE is supported", what,
                 boost::json::serialize(type));
  }
  for (const char* option :
       {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"}) {
    if (!is_off(member(model, option))) {
      return error(ErrorCode::kUnsupported, "{}: the model's {} is not supported", what, option);
    }
  }
  return {};
}

}  // namespace

Status add_vocabulary(const json::object& vocabulary, std::string_view what, TokenizerSpec& spec) {
  std::unordered_map<std::string_view, const AddedToken*> added;
  for (const AddedToken& token : spec.added) added.emplace(token.content, &token);
  spec.bpe.tokens.reserve(vocabulary.size());
  for (const auto& entry : vocabulary) {
    const std::string_view spelling = entry.key();
    const auto id = token_id(entry.value());
    if (!id) return bad_id(what, spelling, entry.value());
    if (const auto twin = added.find(spelling); twin != added.end()) {
      if (twin->second->id != *id) {
        return invalid_argument(
            "{}: the token \"{}\" has the id {} in the vocabulary and {} among the added tokens",
            what, spelling, *id, twin->second->id);
      }
      if (twin->second->special) {
        if (byte_level_bytes(spelling).value_or("").size() != 1) continue;
        return error(ErrorCode::kUnsupported,
                     "{}: \"{}\" is special and also the only token of a byte", what, spelling);
      }
    }
    auto bytes = byte_level_bytes(spelling);
    if (bytes && !bytes->empty()) {
      spec.bpe.tokens.push_back({*id, std::move(*bytes)});
    } else {
      spec.decode_only.push_back({*id, std::string(spelling)});
    }
  }
  return {};
}

Status add_merges(const MergePairs& merges, const json::object& vocabulary, std::string_view what,
                  TokenizerSpec& spec) {
  std::unordered_set<std::int32_t> special;
  for (const AddedToken& token : spec.added) {
    if (token.special) special.insert(token.id);
  }
  std::string joined;
  std::uint32_t rank = 0;
  spec.bpe.merges.reserve(merges.size());
  for (const auto& [left, right] : merges) {
    joined.assign(left).append(right);
    const auto left_id = token_id(member(vocabulary, left));
    const auto right_id = token_id(member(vocabulary, right));
    const auto merged_id = token_id(member(vocabulary, joined));
    if (!left_id || !right_id || !merged_id) {
      return invalid_argument(
          "{}: merge {} is \"{}\" + \"{}\", but \"{}\" is not in the vocabulary", what, rank, left,
          right,
          !left_id    ? left
          : !right_id ? right
                      : std::string_view(joined));
    }
    // No text may become a special token, by merging either.
    if (!special.contains(*merged_id))
      spec.bpe.merges.push_back({*left_id, *right_id, *merged_id, rank});
    ++rank;
  }
  return {};
}

Result<TokenizerSpec> read_tokenizer_json(const json::value& root, std::string_view what) {
  if (!root.is_object() || !member(root.get_object(), "model").is_object()) {
    return invalid_argument("{}: not a tokenizer.json: it has no \"model\" object", what);
  }
  const json::object& file = root.get_object();
  const json::object& model = member(file, "model").get_object();
  FOVEA_TRY_STATUS(check_model(model, what));
  FOVEA_TRY_STATUS(check_normalizer(member(file, "normalizer"), what));
  FOVEA_TRY_STATUS(check_post_processor(member(file, "post_processor"), what));
  FOVEA_TRY_STATUS(check_decoder(member(file, "decoder"), what));
  const json::value& vocabulary = member(model, "vocab");
  if (!vocabulary.is_object())
    return invalid_argument("{}: the model has no object \"vocab\"", what);
  TokenizerSpec spec;
  FOVEA_TRY(spec.pre_tokenizer, PreTokenizer::from_json(member(file, "pre_tokenizer"), what));
  FOVEA_TRY_STATUS(read_added_tokens(member(file, "added_tokens"), what, spec));
  FOVEA_TRY_STATUS(add_vocabulary(vocabulary.get_object(), what, spec));
  FOVEA_TRY_STATUS(read_merges(member(model, "merges"), vocabulary.get_object(), what, spec));
  spec.bpe.ignore_merges = is_true(model, "ignore_merges");
  spec.bpe.fuse_unknown = is_true(model, "fuse_unk");
  if (const json::value& unknown = member(model, "unk_token"); unknown.is_string()) {
    const auto id = token_id(member(vocabulary.get_object(), unknown.get_string()));
    bool special = false;
    for (const AddedToken& token : spec.added)
      special = special || (token.special && id == token.id);
    // A special unknown token would let a text place it; bytes without a token are dropped instead.
    if (id && !special) spec.bpe.unknown_id = *id;
  }
  return spec;
}

}  // namespace fovea
