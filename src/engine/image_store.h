#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string_view>

#include "fovea/result.h"

#include "engine/image_file.h"

namespace fovea {

/// A folder of encoded pictures that outlives the process: one file for each picture and model.
/// Several processes may use one folder, and any of them may die at any point: files appear whole
/// or not at all, and what does not check out when it is read counts as missing and is removed.
/// Once the files take more than `max_bytes`, those that were not used for longest go; while
/// several processes write at once, the folder may exceed it by one file each. Thread-safe.
///
/// Embeddings tell about their pictures: folder and files are made for their owner's eyes only.
class ImageStore {
 public:
  /// Makes the folder when it is missing, and clears away what dead processes left half written.
  /// `fingerprint` is any text that differs between models whose embeddings differ. Errors name the
  /// folder and the cause: kInvalidArgument when it is no folder, kIo when it cannot be made, read
  /// or written.
  static Result<ImageStore> open(const std::filesystem::path& folder, std::string_view fingerprint,
                                 std::size_t max_bytes);

  /// The picture's embeddings, now those most recently used; nothing when they are not here, cannot
  /// be read or do not check out.
  std::optional<HostEmbeddings> load(const ImageIdentity& identity) const;

  /// Keeps the embeddings, on the disk when this returns. Errors, which no request need fail for:
  /// kIo names the file and the cause, kResourceExhausted when the file is larger than the whole
  /// store may be, those of write_image_file().
  Status save(const ImageIdentity& identity, const HostEmbeddings& embeddings) const;

 private:
  ImageStore(std::filesystem::path folder, const Sha256Digest& model, std::size_t max_bytes)
      : folder_(std::move(folder)), model_(model), max_bytes_(max_bytes) {}

  std::filesystem::path path_of(const ImageIdentity& identity) const;
  void make_room(std::size_t size_bytes) const;

  std::filesystem::path folder_;
  Sha256Digest model_;
  std::size_t max_bytes_;
};

}  // namespace fovea
