#pragma once

#include <array>
#include <cstddef>
#include <openssl/evp.h>
#include <span>
#include <string>

namespace fovea::test {

/// SHA-256 of `bytes` in lower-case hexadecimal, as golden files write it.
inline std::string sha256_hex(std::span<const std::byte> bytes) {
  std::array<unsigned char, 32> digest{};
  EVP_Digest(bytes.data(), bytes.size(), digest.data(), nullptr, EVP_sha256(), nullptr);
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const unsigned char byte : digest) {
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  return hex;
}

}  // namespace fovea::test
