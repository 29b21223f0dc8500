#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "hub/digest.h"
#include "hub/disk.h"
#include "hub/repository.h"
#include "hub/transport.h"

namespace fovea::hub {

/// A file on its way: bytes gather under a hidden name beside the final one, are hashed as they
/// come, and take the final name when all are there and the sum is right. What was gathered stays
/// when the program ends, and is gone on with the next time.
class PartFile final : public BodySink {
 public:
  /// The beginning of the hidden names; the sum is in it, so what was gathered for another version
  /// is not gone on with.
  static std::string stem(const RemoteFile& file);
  static constexpr const char* kEnding = ".part";

  /// `file` has a size and a digest. Bytes of an earlier run are hashed here. Error: kIo.
  static Result<std::unique_ptr<PartFile>> open(const std::filesystem::path& folder,
                                                const RemoteFile& file);

  std::uint64_t bytes() const { return bytes_; }
  bool is_complete() const { return bytes_ == size_; }
  /// The server's name for the bytes that are here already; empty when it gave none.
  const std::string& etag() const { return etag_; }
  /// Told how many more bytes are here, after each write.
  void on_bytes(std::function<void(std::uint64_t)> listener) { listener_ = std::move(listener); }

  Status begin(const HttpResponse& response) override;
  Status write(std::span<const std::byte> bytes) override;

  /// Throws away what is here.
  Status restart();
  /// Gives the complete file its name. False when the sum is wrong: then nothing is left of it.
  Result<bool> finish();

 private:
  PartFile(std::filesystem::path folder, const RemoteFile& file);
  Status hash_what_is_here();
  Status keep_etag(const std::string& etag);

  std::filesystem::path folder_;
  std::filesystem::path path_;
  std::filesystem::path etag_path_;
  std::string name_;
  std::uint64_t size_;
  FileDigest digest_;
  Descriptor file_;
  std::unique_ptr<DigestStream> hash_;
  std::uint64_t bytes_ = 0;
  std::string etag_;
  std::function<void(std::uint64_t)> listener_;
};

/// Whether the file at `path` has the size and sum of `file`; false when it cannot be read.
bool has_digest(const std::filesystem::path& path, const RemoteFile& file);

}  // namespace fovea::hub
