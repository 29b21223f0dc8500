#include "hub/manifest.h"

#include <fcntl.h>
#include <system_error>
#include <unistd.h>

#include "base/json.h"
#include "base/try.h"
#include "hub/disk.h"

namespace fovea::hub {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFileName = "fovea-pull.json";
constexpr std::size_t kMaxManifestBytes = std::size_t{4} << 20;

std::string text_at(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

std::optional<RemoteFile> file_of(const json::value& value) {
  if (!value.is_object()) return std::nullopt;
  const json::object& object = value.get_object();
  const json::value* size = object.if_contains("size");
  RemoteFile file{.name = text_at(object, "name"), .size = {}, .digest = {}};
  file.digest = parse_digest(text_at(object, "digest"));
  if (!is_plain_file_name(file.name) || !file.digest || size == nullptr || !size->is_int64()) {
    return std::nullopt;
  }
  file.size = static_cast<std::uint64_t>(size->get_int64());
  return file;
}

}  // namespace

std::optional<Manifest> read_manifest(const fs::path& folder) {
  std::error_code failure;
  if (!fs::exists(folder / kFileName, failure)) return std::nullopt;
  const Result<json::value> root = json::parse_file(folder / kFileName, kMaxManifestBytes);
  if (!root.ok() || !root->is_object()) return std::nullopt;
  const json::object& object = root->get_object();
  Manifest manifest{.repository = text_at(object, "repository"),
                    .revision = text_at(object, "revision"),
                    .commit = text_at(object, "commit"),
                    .tokenizer_repository = text_at(object, "tokenizer_repository"),
                    .tokenizer_commit = text_at(object, "tokenizer_commit"),
                    .licence = text_at(object, "licence"),
                    .files = {}};
  const json::value* files = object.if_contains("files");
  if (files == nullptr || !files->is_array()) return std::nullopt;
  for (const json::value& value : files->get_array()) {
    std::optional<RemoteFile> file = file_of(value);
    if (!file || fs::file_size(folder / file->name, failure) != file->size || failure) {
      return std::nullopt;
    }
    manifest.files.push_back(std::move(*file));
  }
  return manifest;
}

Status write_manifest(const fs::path& folder, const Manifest& manifest) {
  json::array files;
  for (const RemoteFile& file : manifest.files) {
    files.push_back(json::object{{"name", file.name},
                                 {"size", file.size.value_or(0)},
                                 {"digest", file.digest ? file.digest->hex : std::string()}});
  }
  const json::object object{{"repository", manifest.repository},
                            {"revision", manifest.revision},
                            {"commit", manifest.commit},
                            {"tokenizer_repository", manifest.tokenizer_repository},
                            {"tokenizer_commit", manifest.tokenizer_commit},
                            {"licence", manifest.licence},
                            {"files", std::move(files)}};
  const std::string text = boost::json::serialize(object) + "\n";
  const fs::path path = folder / kFileName;
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (file.get() < 0 ||
      ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      ::fsync(file.get()) != 0) {
    return system_error("write", path);
  }
  return sync_folder(folder);
}

}  // namespace fovea::hub
