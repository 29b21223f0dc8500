#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "fovea/result.h"

#include "hub/known_models.h"
#include "hub/repository.h"

namespace fovea::hub {

/// What lies in a model's folder beside the files of the engine: where they came from. Written
/// last, so a folder that has it is complete.
struct Manifest {
  std::string repository;
  std::string revision;
  std::string commit;
  std::string tokenizer_repository;  ///< empty: the model's own
  std::string tokenizer_commit;      ///< empty: the model's own
  std::string licence;               ///< as the repository's card says it; may be empty
  std::vector<RemoteFile> files;

  std::uint64_t total_bytes() const;
};

/// A model in the models' folder.
struct StoredModel {
  std::string name;  ///< what to type for it
  std::filesystem::path folder;
  std::optional<Manifest> manifest;  ///< none: a pull was interrupted
  std::uint64_t bytes = 0;           ///< on disk
};

/// Holds a model's lock until it goes; others wait.
class StoreLock {
 public:
  explicit StoreLock(int file) : file_(file) {}
  StoreLock(StoreLock&& other) noexcept : file_(other.file_) { other.file_ = -1; }
  StoreLock& operator=(StoreLock&&) = delete;
  ~StoreLock();

 private:
  int file_;
};

/// The folder of pulled models: ROOT/ORG/NAME for each, ROOT/.incoming/ORG/NAME while it is being
/// pulled. A model appears under its name whole or not at all.
class ModelStore {
 public:
  explicit ModelStore(std::filesystem::path root) : root_(std::move(root)) {}

  const std::filesystem::path& root() const { return root_; }
  std::filesystem::path folder(const ModelReference& model) const;
  /// Where its files are gathered.
  std::filesystem::path incoming(const ModelReference& model) const;

  /// The manifest of a model that is there; nothing when it is not, or not whole.
  std::optional<Manifest> find(const ModelReference& model) const;
  /// All models, whole ones and begun ones, by name.
  Result<std::vector<StoredModel>> list() const;

  /// Keeps other processes out of this model. With `wait` until they have gone; without it
  /// kFailedPrecondition when there are any.
  Result<StoreLock> lock(const ModelReference& model, bool wait) const;
  /// Writes the manifest into incoming() and lets that folder take the model's name, in one step,
  /// in place of an older one. Under the lock.
  Status install(const ModelReference& model, const Manifest& manifest) const;
  /// Deletes the model and what was begun of it, and returns the bytes that became free. Errors:
  /// kNotFound; kFailedPrecondition while it is being pulled.
  Result<std::uint64_t> remove(const ModelReference& model) const;

 private:
  std::filesystem::path root_;
};

/// Makes a folder and those above it. Error: kIo.
Status make_folder(const std::filesystem::path& folder);

/// Bytes of the files in a folder, deeper ones included.
std::uint64_t bytes_on_disk(const std::filesystem::path& folder);

}  // namespace fovea::hub
