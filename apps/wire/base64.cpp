#include "base64.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <openssl/evp.h>

namespace fovea::wire {
namespace {

bool is_plain(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
         c == '/';
}

// The text in the usual alphabet, without padding and line breaks.
std::optional<std::string> normalise(std::string_view text) {
  std::string plain;
  plain.reserve(text.size() + 3);
  std::size_t i = 0;
  for (; i < text.size() && text[i] != '='; ++i) {
    char c = text[i];
    if (c == '\r' || c == '\n') continue;
    if (c == '-') c = '+';
    if (c == '_') c = '/';
    if (!is_plain(c)) return std::nullopt;
    plain += c;
  }
  std::size_t padding = 0;
  for (; i < text.size(); ++i) {
    if (text[i] == '=') {
      ++padding;
    } else if (text[i] != '\r' && text[i] != '\n') {
      return std::nullopt;
    }
  }
  // One sign more than whole groups says nothing: six bits are no byte.
  if (plain.size() % 4 == 1) return std::nullopt;
  if (padding != 0 && padding != (4 - plain.size() % 4) % 4) return std::nullopt;
  return plain;
}

}  // namespace

std::optional<std::vector<std::byte>> decode_base64(std::string_view text) {
  std::optional<std::string> plain = normalise(text);
  if (!plain || plain->size() > std::numeric_limits<int>::max() - 4) return std::nullopt;
  const std::size_t padding = (4 - plain->size() % 4) % 4;
  plain->append(padding, '=');
  std::vector<std::byte> bytes(plain->size() / 4 * 3);
  const int written = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                                      reinterpret_cast<const unsigned char*>(plain->data()),
                                      static_cast<int>(plain->size()));
  if (written < 0) return std::nullopt;
  // The library counts what the padding stands for.
  bytes.erase(bytes.end() - static_cast<std::ptrdiff_t>(padding), bytes.end());
  return bytes;
}

}  // namespace fovea::wire
