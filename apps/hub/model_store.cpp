#include "hub/model_store.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <system_error>
#include <unistd.h>

#include "base/error.h"
#include "base/try.h"
#include "hub/disk.h"
#include "hub/manifest.h"

namespace fovea::hub {
namespace {

namespace fs = std::filesystem;

constexpr const char* kIncoming = ".incoming";
constexpr const char* kLocks = ".locks";

std::vector<fs::path> folders_in(const fs::path& parent) {
  std::vector<fs::path> found;
  std::error_code failure;
  for (fs::directory_iterator it(parent, failure), end; !failure && it != end;
       it.increment(failure)) {
    std::error_code ignored;
    if (it->is_directory(ignored) && !it->path().filename().string().starts_with('.')) {
      found.push_back(it->path());
    }
  }
  return found;
}

// The reference that a folder ORG/NAME or ORG/NAME@REVISION was made for.
Result<ModelReference> reference_of(const fs::path& folder) {
  std::string text = folder.parent_path().filename().string() + "/" + folder.filename().string();
  for (std::size_t at = 0; (at = text.find("%2F", at)) != std::string::npos;) {
    text.replace(at, 3, "/");
  }
  return parse_reference(text);
}

// Begins the second folder's life under the first one's name.
Status replace_folder(const fs::path& incoming, const fs::path& folder) {
  std::error_code failure;
  if (!fs::exists(folder, failure)) {
    if (::rename(incoming.c_str(), folder.c_str()) != 0) return system_error("make", folder);
    return {};
  }
  if (::renameat2(AT_FDCWD, incoming.c_str(), AT_FDCWD, folder.c_str(), RENAME_EXCHANGE) == 0) {
    fs::remove_all(incoming, failure);  // by now the old one
    return {};
  }
  // A file system that cannot exchange: for a moment there is neither.
  if (errno != EINVAL && errno != ENOSYS) return system_error("replace", folder);
  fs::remove_all(folder, failure);
  if (::rename(incoming.c_str(), folder.c_str()) != 0) return system_error("replace", folder);
  return {};
}

}  // namespace

std::uint64_t Manifest::total_bytes() const {
  std::uint64_t total = 0;
  for (const RemoteFile& file : files) total += file.size.value_or(0);
  return total;
}

StoreLock::~StoreLock() {
  if (file_ >= 0) ::close(file_);
}

Status make_folder(const fs::path& folder) {
  std::error_code failure;
  fs::create_directories(folder, failure);
  if (!failure) return {};
  return error(ErrorCode::kIo, "cannot make {}: {}", folder.string(), failure.message());
}

std::uint64_t bytes_on_disk(const fs::path& folder) {
  std::uint64_t total = 0;
  std::error_code failure;
  for (fs::recursive_directory_iterator it(folder, failure), end; !failure && it != end;
       it.increment(failure)) {
    std::error_code ignored;
    if (it->is_regular_file(ignored)) total += it->file_size(ignored);
  }
  return total;
}

fs::path ModelStore::folder(const ModelReference& model) const {
  return root_ / model.folder_name();
}

fs::path ModelStore::incoming(const ModelReference& model) const {
  return root_ / kIncoming / model.folder_name();
}

std::optional<Manifest> ModelStore::find(const ModelReference& model) const {
  return read_manifest(folder(model));
}

Result<std::vector<StoredModel>> ModelStore::list() const {
  std::vector<StoredModel> models;
  for (const fs::path& parent : {root_, root_ / kIncoming}) {
    for (const fs::path& organisation : folders_in(parent)) {
      for (const fs::path& folder : folders_in(organisation)) {
        const Result<ModelReference> reference = reference_of(folder);
        if (!reference.ok()) continue;  // somebody else's folder
        models.push_back({.name = reference->name(),
                          .folder = folder,
                          .manifest = parent == root_ ? read_manifest(folder) : std::nullopt,
                          .bytes = bytes_on_disk(folder)});
      }
    }
  }
  std::ranges::sort(models, {}, [](const StoredModel& model) {
    return std::pair(model.name, !model.manifest.has_value());
  });
  return models;
}

Result<StoreLock> ModelStore::lock(const ModelReference& model, bool wait) const {
  FOVEA_TRY_STATUS(make_folder(root_ / kLocks));
  std::string name = model.folder_name();
  std::ranges::replace(name, '/', '@');
  const fs::path path = root_ / kLocks / name;
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file < 0) return system_error("open", path);
  StoreLock held(file);
  while (::flock(file, LOCK_EX | (wait ? 0 : LOCK_NB)) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return system_error("lock", path);
    return error(ErrorCode::kFailedPrecondition, "{} is being pulled by another process",
                 model.name());
  }
  return held;
}

Status ModelStore::install(const ModelReference& model, const Manifest& manifest) const {
  const fs::path target = folder(model);
  FOVEA_TRY_STATUS(write_manifest(incoming(model), manifest));
  FOVEA_TRY_STATUS(make_folder(target.parent_path()));
  FOVEA_TRY_STATUS(replace_folder(incoming(model), target));
  std::error_code ignored;
  fs::remove(incoming(model).parent_path(), ignored);  // goes only when it is empty
  return sync_folder(target.parent_path());
}

Result<std::uint64_t> ModelStore::remove(const ModelReference& model) const {
  std::error_code failure;
  if (!fs::exists(folder(model), failure) && !fs::exists(incoming(model), failure)) {
    return error(ErrorCode::kNotFound, "there is no pulled model {} in {}", model.name(),
                 root_.string());
  }
  FOVEA_TRY(const StoreLock held, lock(model, /*wait=*/false));
  std::uint64_t freed = 0;
  for (const fs::path& gone : {folder(model), incoming(model)}) {
    freed += bytes_on_disk(gone);
    fs::remove_all(gone, failure);
    if (failure) {
      return error(ErrorCode::kIo, "cannot remove {}: {}", gone.string(), failure.message());
    }
    std::error_code ignored;
    fs::remove(gone.parent_path(), ignored);  // goes only when it is empty
  }
  return freed;
}

}  // namespace fovea::hub
