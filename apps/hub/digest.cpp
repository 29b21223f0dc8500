#include "hub/digest.h"

#include <array>
#include <fmt/format.h>
#include <openssl/evp.h>

#include "base/check.h"

namespace fovea::hub {
namespace {

constexpr std::size_t kSha256Digits = 64;
constexpr std::size_t kGitBlobDigits = 40;

EVP_MD_CTX* typed(void* context) { return static_cast<EVP_MD_CTX*>(context); }

}  // namespace

std::optional<FileDigest> parse_digest(std::string_view hex) {
  if (hex.size() != kSha256Digits && hex.size() != kGitBlobDigits) return std::nullopt;
  FileDigest digest;
  digest.kind =
      hex.size() == kSha256Digits ? FileDigest::Kind::kSha256 : FileDigest::Kind::kGitBlob;
  for (const char c : hex) {
    const bool upper = c >= 'A' && c <= 'F';
    if (!upper && !(c >= 'a' && c <= 'f') && !(c >= '0' && c <= '9')) return std::nullopt;
    digest.hex += upper ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return digest;
}

void DigestStream::FreeContext::operator()(void* context) const { EVP_MD_CTX_free(typed(context)); }

DigestStream::DigestStream(FileDigest::Kind kind, std::uint64_t size) : context_(EVP_MD_CTX_new()) {
  const EVP_MD* algorithm = kind == FileDigest::Kind::kSha256 ? EVP_sha256() : EVP_sha1();
  FOVEA_CHECK(context_ && EVP_DigestInit_ex(typed(context_.get()), algorithm, nullptr) == 1,
              "a hash is not available in libcrypto");
  if (kind == FileDigest::Kind::kSha256) return;
  std::string head = fmt::format("blob {}", size);
  head.push_back('\0');
  update(std::as_bytes(std::span(head)));
}

void DigestStream::update(std::span<const std::byte> bytes) {
  const int updated = EVP_DigestUpdate(typed(context_.get()), bytes.data(), bytes.size());
  FOVEA_CHECK(updated == 1, "libcrypto hashed nothing");
}

std::string DigestStream::finish() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> bytes{};
  unsigned size = 0;
  const int finished = EVP_DigestFinal_ex(typed(context_.get()), bytes.data(), &size);
  FOVEA_CHECK(finished == 1, "libcrypto gave no digest");
  std::string hex;
  for (unsigned i = 0; i < size; ++i) hex += fmt::format("{:02x}", bytes[i]);
  return hex;
}

}  // namespace fovea::hub
