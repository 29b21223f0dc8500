#pragma once

#include <cstdlib>
#include <gtest/gtest.h>
#include <utility>

#include "fovea/result.h"

namespace fovea::testing_support {

/// The value of a result without which a test cannot go on.
template <class T>
T must(Result<T> result) {
  if (!result.ok()) {
    ADD_FAILURE() << result.error().message;
    std::abort();
  }
  return std::move(result).value();
}

}  // namespace fovea::testing_support
