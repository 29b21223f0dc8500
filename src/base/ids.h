#pragma once

#include <compare>
#include <cstdint>

namespace fovea {

/// An integer with a meaning: two ids of different kinds do not convert into one another.
template <class Tag, class Rep = std::int32_t>
class StrongId {
 public:
  constexpr StrongId() = default;
  constexpr explicit StrongId(Rep value) : value_(value) {}
  constexpr Rep value() const { return value_; }
  friend constexpr auto operator<=>(StrongId, StrongId) = default;

 private:
  Rep value_ = 0;
};

using TokenId = StrongId<struct TokenIdTag>;  ///< Row of the vocabulary.
using PageId = StrongId<struct PageIdTag>;    ///< Physical page of the KV cache.

}  // namespace fovea
