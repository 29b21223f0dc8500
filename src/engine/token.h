#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/ids.h"

namespace fovea {

/// The id of a position that was generated without choosing a word.
inline constexpr TokenId kNoToken{-1};

/// One position of a sequence that is no picture: a word, or a slot of the vocabulary that carries
/// numbers.
struct Token {
  enum class Kind : std::uint8_t {
    kText,   ///< embedded by the vocabulary's table
    kCoord,  ///< carries one coordinate in [0, 1]
    kSize,   ///< carries width and height in [0, 1]
  };

  Kind kind = Kind::kText;
  TokenId id;
  float a = 0;  ///< coordinate, or width
  float b = 0;  ///< height

  static Token text(TokenId id) { return {Kind::kText, id, 0, 0}; }
  static Token coord(TokenId id, float value) { return {Kind::kCoord, id, value, 0}; }
  static Token size(TokenId id, float width, float height) {
    return {Kind::kSize, id, width, height};
  }
};

/// A token that the model chose, and how sure it was.
struct SampledToken {
  Token token;
  float logprob = 0;  ///< of the id among those that were allowed
  float localisation =
      1;  ///< probability near the chosen bin (the product of both halves for a size); 1 for words
  std::vector<std::pair<TokenId, float>> top{};  ///< likeliest ids, when they were asked for
};

}  // namespace fovea
