#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace fovea::hub {

/// What a hub says that a file's bytes are. Large files have their SHA-256; small ones lie in git
/// and have its blob id, the SHA-1 of "blob SIZE\0" and the bytes.
struct FileDigest {
  enum class Kind { kSha256, kGitBlob };
  Kind kind = Kind::kSha256;
  std::string hex;  ///< lower case

  bool operator==(const FileDigest&) const = default;
};

/// A digest by its length in hexadecimal digits: 64 or 40. Nothing for other texts.
std::optional<FileDigest> parse_digest(std::string_view hex);

/// Computes a digest from bytes that come in pieces.
class DigestStream {
 public:
  /// `size` is the whole file's; a git blob id begins with it.
  DigestStream(FileDigest::Kind kind, std::uint64_t size);
  void update(std::span<const std::byte> bytes);
  /// Lower-case hexadecimal. Called once, last.
  std::string finish();

 private:
  struct FreeContext {
    void operator()(void* context) const;
  };
  std::unique_ptr<void, FreeContext> context_;  // the library's EVP_MD_CTX
};

}  // namespace fovea::hub
