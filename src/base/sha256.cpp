#include "base/sha256.h"

#include <openssl/evp.h>

#include "base/check.h"

namespace fovea {
namespace {

EVP_MD_CTX* typed(void* context) { return static_cast<EVP_MD_CTX*>(context); }

}  // namespace

void Sha256::FreeContext::operator()(void* context) const { EVP_MD_CTX_free(typed(context)); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  FOVEA_CHECK(context_ && EVP_DigestInit_ex(typed(context_.get()), EVP_sha256(), nullptr) == 1,
              "SHA-256 is not available in libcrypto");
}

Sha256& Sha256::update(std::span<const std::byte> bytes) {
  const int updated = EVP_DigestUpdate(typed(context_.get()), bytes.data(), bytes.size());
  FOVEA_CHECK(updated == 1, "libcrypto hashed nothing");
  return *this;
}

Sha256Digest Sha256::finish() {
  Sha256Digest digest;
  auto* out = reinterpret_cast<unsigned char*>(digest.data());
  const int finished = EVP_DigestFinal_ex(typed(context_.get()), out, nullptr);
  FOVEA_CHECK(finished == 1, "libcrypto gave no digest");
  return digest;
}

}  // namespace fovea
