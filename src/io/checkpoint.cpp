#include "io/checkpoint.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <system_error>

#include "base/error.h"
#include "base/json.h"
#include "base/try.h"
#include "io/folder.h"
#include "io/json_keys.h"

namespace fovea {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxIndexBytes = 64 << 20;
constexpr std::string_view kCompiledPrefix = "._orig_mod";

// torch.compile wraps a module and inserts this piece into every name below it.
std::string strip_compiled(std::string name) {
  for (std::size_t at = name.find(kCompiledPrefix); at != std::string::npos;
       at = name.find(kCompiledPrefix, at)) {
    name.erase(at, kCompiledPrefix.size());
  }
  return name;
}

bool is_pickle_name(const fs::path& path) {
  const fs::path extension = path.extension();
  return extension == ".pt" || extension == ".pth" || extension == ".bin" || extension == ".ckpt";
}

Error pickle_error(const fs::path& path) {
  return error(
      ErrorCode::kUnsupported,
      "{} is a PyTorch pickle, which can run code when it is read; convert it to safetensors (an "
      "adapter with tools/convert_adapter.py; a model in Python: "
      "safetensors.torch.save_file(torch.load(path, weights_only=True), \"model.safetensors\"))",
      path.string());
}

// The one file of `folder` that open() should read.
Result<fs::path> find_checkpoint(const fs::path& folder) {
  for (const char* name : {"model.safetensors", "model.safetensors.index.json"}) {
    if (file_exists(folder / name)) return folder / name;
  }
  std::vector<fs::path> found;
  std::optional<fs::path> pickle;
  FOVEA_TRY(const std::vector<fs::path> paths, list_folder(folder));
  for (const fs::path& path : paths) {
    if (path.extension() == ".safetensors") found.push_back(path);
    if (is_pickle_name(path)) pickle = path;
  }
  if (found.size() == 1) return found.front();
  if (found.empty() && pickle) return pickle_error(*pickle);
  if (found.empty()) {
    return error(ErrorCode::kNotFound,
                 "{} holds no model.safetensors, no model.safetensors.index.json and no other "
                 "*.safetensors",
                 folder.string());
  }
  return invalid_argument(
      "{} holds {} safetensors files ({}, {}, ...) and neither model.safetensors nor "
      "model.safetensors.index.json; name one of them",
      folder.string(), found.size(), found[0].filename().string(), found[1].filename().string());
}

// tensor -> shard, with tensor names as in the files.
Result<std::map<std::string, std::string>> read_weight_map(const fs::path& path) {
  FOVEA_TRY(MappedFile file, MappedFile::open(path));
  if (file.bytes().size() > kMaxIndexBytes) {
    return invalid_argument("{} has {} bytes; at most {} are read", path.string(),
                            file.bytes().size(), kMaxIndexBytes);
  }
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                              file.bytes().size());
  FOVEA_TRY(const json::value root, json::parse(text, path.string()));
  if (const auto doubled = json::find_doubled_key(text)) {
    return invalid_argument("{} names \"{}\" twice", path.string(), *doubled);
  }
  const json::object* object = root.if_object();
  const json::value* member = object != nullptr ? object->if_contains("weight_map") : nullptr;
  if (member == nullptr || !member->is_object()) {
    return invalid_argument("{} has no \"weight_map\" object: not an index of shards",
                            path.string());
  }
  std::map<std::string, std::string> shards;
  for (const auto& [name, shard] : member->get_object()) {
    if (!shard.is_string() || shard.get_string().empty()) {
      return invalid_argument("{}: tensor \"{}\" has no shard name", path.string(),
                              std::string_view(name));
    }
    const std::string_view file_name = shard.get_string();
    // An index must not make us read files elsewhere.
    if (fs::path(file_name).filename() != fs::path(file_name) || file_name == "..") {
      return invalid_argument(
          "{}: tensor \"{}\" lies in \"{}\"; wanted the plain name of a file in the same folder",
          path.string(), std::string_view(name), file_name);
    }
    shards.emplace(name, file_name);
  }
  return shards;
}

}  // namespace

Result<Checkpoint> Checkpoint::open(const fs::path& path) {
  std::error_code failure;
  const fs::file_status status = fs::status(path, failure);
  if (!fs::exists(status)) return error(ErrorCode::kNotFound, "there is no {}", path.string());
  fs::path file = path;
  if (fs::is_directory(status)) {
    FOVEA_TRY(file, find_checkpoint(path));
  }
  Checkpoint checkpoint;
  checkpoint.folder_ = file.has_parent_path() ? file.parent_path() : fs::path(".");
  if (is_pickle_name(file)) return pickle_error(file);
  if (file.extension() == ".json") {
    FOVEA_TRY_STATUS(checkpoint.add_index(file));
  } else {
    FOVEA_TRY_STATUS(checkpoint.add_file(file));
  }
  FOVEA_TRY_STATUS(checkpoint.sort_and_check());
  return checkpoint;
}

Status Checkpoint::add_file(const fs::path& path) {
  FOVEA_TRY(SafetensorsFile file, SafetensorsFile::open(path));
  for (const TensorEntry& tensor : file.tensors()) {
    TensorEntry entry = tensor;
    entry.name = strip_compiled(std::move(entry.name));
    tensors_.push_back(std::move(entry));
  }
  files_.push_back(std::move(file));
  return {};
}

Status Checkpoint::add_index(const fs::path& path) {
  FOVEA_TRY(const auto shards, read_weight_map(path));
  std::map<std::string, std::size_t> file_idx;  // shard name -> place in files_
  for (const auto& [name, shard] : shards) {
    if (file_idx.contains(shard)) continue;
    const fs::path shard_path = folder_ / shard;
    if (!file_exists(shard_path)) {
      return error(ErrorCode::kNotFound, "{} places tensor \"{}\" in {}, which does not exist",
                   path.string(), name, shard_path.string());
    }
    FOVEA_TRY_STATUS(add_file(shard_path));
    file_idx.emplace(shard, files_.size() - 1);
  }
  // Names once per shard: a linear search per tensor would be quadratic.
  std::vector<std::set<std::string_view>> names(files_.size());
  for (std::size_t i = 0; i < files_.size(); ++i) {
    for (const TensorEntry& tensor : files_[i].tensors()) names[i].insert(tensor.name);
  }
  for (const auto& [name, shard] : shards) {
    if (!names[file_idx.at(shard)].contains(name)) {
      return error(ErrorCode::kNotFound, "{} places tensor \"{}\" in {}, which does not hold it",
                   path.string(), name, shard);
    }
  }
  return {};
}

Status Checkpoint::sort_and_check() {
  const auto by_name = [](const TensorEntry& a, const TensorEntry& b) { return a.name < b.name; };
  std::sort(tensors_.begin(), tensors_.end(), by_name);
  const auto twin =
      std::adjacent_find(tensors_.begin(), tensors_.end(),
                         [](const auto& a, const auto& b) { return a.name == b.name; });
  if (twin != tensors_.end()) {
    return invalid_argument("the checkpoint in {} holds tensor \"{}\" twice", folder_.string(),
                            twin->name);
  }
  return {};
}

const TensorEntry* Checkpoint::find(std::string_view name) const {
  const auto place =
      std::lower_bound(tensors_.begin(), tensors_.end(), name,
                       [](const TensorEntry& a, std::string_view b) { return a.name < b; });
  return place != tensors_.end() && place->name == name ? &*place : nullptr;
}

std::size_t Checkpoint::total_bytes() const {
  std::size_t total = 0;
  for (const TensorEntry& tensor : tensors_) total += tensor.bytes.size();
  return total;
}

void Checkpoint::release(std::span<const std::byte> bytes) const {
  for (const SafetensorsFile& file : files_) file.release(bytes);
}

}  // namespace fovea
