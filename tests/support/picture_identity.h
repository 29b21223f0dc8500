#pragma once

#include "image/identity.h"

namespace fovea::testing_support {

/// The identity of the picture with this number.
inline ImageIdentity identity_of(int number) {
  ImageIdentity identity{};
  identity[0] = static_cast<std::byte>(number);
  identity[1] = static_cast<std::byte>(number >> 8);
  identity[31] = static_cast<std::byte>(number + 1);
  return identity;
}

}  // namespace fovea::testing_support
