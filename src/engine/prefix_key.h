#pragma once

#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/token.h"
#include "image/identity.h"

namespace fovea {

/// What determines the keys and values of one or more consecutive positions, given everything
/// before them: a word, the numbers of a coordinate or size, or the beginning of sequence together
/// with a picture (those positions see one another, so they are cached as a whole or not at all).
struct PrefixKey {
  enum class Kind : std::uint8_t { kText, kCoord, kSize, kPicture };

  Kind kind = Kind::kText;
  std::int32_t span = 1;       ///< positions; 1 but for a picture
  std::int32_t id = 0;         ///< vocabulary id; the beginning of sequence's for a picture
  std::uint32_t a = 0, b = 0;  ///< bits of the numbers that the position carries
  ImageIdentity picture{};

  static PrefixKey of(const Token& token) {
    PrefixKey key;
    key.id = token.id.value();
    if (token.kind == Token::Kind::kCoord) {
      key.kind = Kind::kCoord;
      key.a = std::bit_cast<std::uint32_t>(token.a);
    } else if (token.kind == Token::Kind::kSize) {
      key.kind = Kind::kSize;
      key.a = std::bit_cast<std::uint32_t>(token.a);
      key.b = std::bit_cast<std::uint32_t>(token.b);
    }
    return key;
  }

  /// `image_tokens` positions behind the beginning of sequence.
  static PrefixKey of_picture(TokenId bos, const ImageIdentity& identity, int image_tokens) {
    PrefixKey key;
    key.kind = Kind::kPicture;
    key.span = 1 + image_tokens;
    key.id = bos.value();
    key.picture = identity;
    return key;
  }

  friend bool operator==(const PrefixKey&, const PrefixKey&) = default;
};

struct PrefixKeyHash {
  std::size_t operator()(const PrefixKey& key) const {
    std::uint64_t hash = static_cast<std::uint64_t>(key.kind);
    const auto mix = [&](std::uint64_t value) {
      hash = (hash ^ value) * 0x9e3779b97f4a7c15ull;
      hash ^= hash >> 32;
    };
    mix(static_cast<std::uint32_t>(key.id));
    mix(std::uint64_t{key.a} << 32 | key.b);
    std::uint64_t word = 0;  // an identity is a hash already: eight of its bytes are as good as all
    std::memcpy(&word, key.picture.data(), sizeof(word));
    mix(word);
    return static_cast<std::size_t>(hash);
  }
};

}  // namespace fovea
