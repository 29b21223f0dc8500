#include "hub/repository.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/json.h"
#include "base/try.h"
#include "hub/human.h"

namespace fovea::hub {
namespace {

constexpr std::size_t kMaxFiles = 10'000;
constexpr std::size_t kMaxShards = 1'000;
constexpr std::size_t kMaxFileNameBytes = 128;
constexpr std::size_t kMaxRepositoryNameBytes = 96;
constexpr std::size_t kMaxRevisionBytes = 128;
constexpr std::size_t kMaxLicenceBytes = 64;
constexpr std::size_t kCommitDigits = 40;
constexpr int kMaxDepth = 32;

bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool is_word(std::string_view text, std::string_view others) {
  return !text.empty() && std::ranges::all_of(text, [others](char c) {
    return is_letter_or_digit(c) || others.find(c) != std::string_view::npos;
  });
}

const json::value* member(const json::value& parent, std::string_view key) {
  return parent.is_object() ? parent.get_object().if_contains(key) : nullptr;
}

std::optional<std::string_view> text_of(const json::value* value) {
  if (value == nullptr || !value->is_string()) return std::nullopt;
  return std::string_view(value->get_string());
}

Result<std::optional<std::uint64_t>> size_of(const json::value* value, std::string_view name) {
  if (value == nullptr || value->is_null()) return std::optional<std::uint64_t>{};
  if (!value->is_int64() || value->get_int64() < 0) {
    return invalid_argument("the hub's list gives {} a size that is no whole number", name);
  }
  return std::optional(static_cast<std::uint64_t>(value->get_int64()));
}

Result<std::optional<FileDigest>> digest_of(const json::value* value, FileDigest::Kind kind,
                                            std::string_view name) {
  if (value == nullptr || value->is_null()) return std::optional<FileDigest>{};
  std::optional<FileDigest> digest = parse_digest(text_of(value).value_or(""));
  if (!digest || digest->kind != kind) {
    return invalid_argument("the hub's list gives {} a sum that is none", name);
  }
  return digest;
}

Result<RemoteFile> parse_file(const json::value& sibling, std::string_view name) {
  RemoteFile file;
  file.name = name;
  FOVEA_TRY(file.size, size_of(member(sibling, "size"), name));
  const json::value* lfs = member(sibling, "lfs");
  if (lfs != nullptr && lfs->is_object()) {
    // The blob of such a file is a pointer: its id says nothing about the bytes.
    FOVEA_TRY(file.digest, digest_of(member(*lfs, "sha256"), FileDigest::Kind::kSha256, name));
    FOVEA_TRY(const auto size, size_of(member(*lfs, "size"), name));
    if (size) file.size = size;
    return file;
  }
  FOVEA_TRY(file.digest, digest_of(member(sibling, "blobId"), FileDigest::Kind::kGitBlob, name));
  return file;
}

// The card's word for the licence, from its data or from a tag "license:...".
std::string licence_of(const json::value& root) {
  std::string_view found;
  if (const json::value* card = member(root, "cardData"); card != nullptr) {
    found = text_of(member(*card, "license_name")).value_or("");
    if (found.empty()) found = text_of(member(*card, "license")).value_or("");
  }
  constexpr std::string_view kTag = "license:";
  const json::value* tags = member(root, "tags");
  if (found.empty() && tags != nullptr && tags->is_array()) {
    for (const json::value& tag : tags->get_array()) {
      const std::string_view text = text_of(&tag).value_or("");
      if (text.starts_with(kTag)) found = text.substr(kTag.size());
    }
  }
  return found.size() <= kMaxLicenceBytes && is_word(found, "-._+ ") ? std::string(found)
                                                                     : std::string();
}

}  // namespace

const RemoteFile* Repository::find(std::string_view name) const {
  const auto found = std::ranges::find(files, name, &RemoteFile::name);
  return found == files.end() ? nullptr : &*found;
}

bool is_plain_file_name(std::string_view name) {
  return name.size() <= kMaxFileNameBytes && is_word(name, "-._") && !name.starts_with('.');
}

bool is_repository_name(std::string_view name) {
  const std::size_t slash = name.find('/');
  if (slash == std::string_view::npos || name.size() > kMaxRepositoryNameBytes) return false;
  for (const std::string_view part : {name.substr(0, slash), name.substr(slash + 1)}) {
    if (!is_word(part, "-._") || !is_letter_or_digit(part.front())) return false;
  }
  return name.find("..") == std::string_view::npos;
}

bool is_revision(std::string_view name) {
  return name.size() <= kMaxRevisionBytes && is_word(name, "-._/") &&
         is_letter_or_digit(name.front()) && name.back() != '/' &&
         name.find("..") == std::string_view::npos && name.find("//") == std::string_view::npos;
}

Result<Repository> parse_repository(std::string_view text) {
  if (text.size() > kMaxListingBytes) {
    return invalid_argument("the hub's list of files exceeds {} bytes", kMaxListingBytes);
  }
  FOVEA_TRY(const json::value root, json::parse(text, "the hub's list of files", kMaxDepth));
  Repository repository;
  const std::optional<FileDigest> commit = parse_digest(text_of(member(root, "sha")).value_or(""));
  if (!commit || commit->hex.size() != kCommitDigits) {
    return invalid_argument("the hub's list of files names no commit");
  }
  repository.commit = commit->hex;
  repository.licence = licence_of(root);
  const json::value* siblings = member(root, "siblings");
  if (siblings == nullptr || !siblings->is_array()) {
    return invalid_argument("the hub's list of files has no \"siblings\"");
  }
  if (siblings->get_array().size() > kMaxFiles) {
    return invalid_argument("the repository has more than {} files", kMaxFiles);
  }
  std::set<std::string_view> names;
  for (const json::value& sibling : siblings->get_array()) {
    const std::string_view name = text_of(member(sibling, "rfilename")).value_or("");
    if (!is_plain_file_name(name)) continue;
    if (!names.insert(name).second) {
      return invalid_argument("the hub's list of files names {} twice", name);
    }
    FOVEA_TRY(RemoteFile file, parse_file(sibling, name));
    repository.files.push_back(std::move(file));
  }
  return repository;
}

Result<std::vector<std::string>> parse_shard_index(std::string_view text) {
  if (text.size() > kMaxShardIndexBytes) {
    return invalid_argument("the index of shards exceeds {} bytes", kMaxShardIndexBytes);
  }
  FOVEA_TRY(const json::value root, json::parse(text, "the index of shards", kMaxDepth));
  const json::value* map = member(root, "weight_map");
  if (map == nullptr || !map->is_object()) {
    return invalid_argument("the index of shards has no \"weight_map\"");
  }
  std::set<std::string> names;
  for (const auto& entry : map->get_object()) {
    const std::string_view name = text_of(&entry.value()).value_or("");
    if (!is_plain_file_name(name)) {
      return invalid_argument("the index of shards names a file that may not be here: '{}'",
                              harmless(name.substr(0, kMaxFileNameBytes)));
    }
    names.insert(std::string(name));
    if (names.size() > kMaxShards) {
      return invalid_argument("the index names more than {} shards", kMaxShards);
    }
  }
  if (names.empty()) return invalid_argument("the index of shards names none");
  return std::vector<std::string>(names.begin(), names.end());
}

}  // namespace fovea::hub
