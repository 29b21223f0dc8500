#pragma once

#include <utility>

#include "fovea/result.h"

// FOVEA_TRY(declaration, expression): declares `declaration` from the value of a Result, or returns
// its error.
//   FOVEA_TRY(Buffer buffer, Buffer::create(device, bytes));
#define FOVEA_TRY_CONCAT_INNER(a, b) a##b
#define FOVEA_TRY_CONCAT(a, b) FOVEA_TRY_CONCAT_INNER(a, b)
#define FOVEA_TRY_IMPL(declaration, expression, result) \
  auto result = (expression);                           \
  if (!result.ok()) return std::move(result).error();   \
  declaration = std::move(result).value()
#define FOVEA_TRY(declaration, ...) \
  FOVEA_TRY_IMPL(declaration, (__VA_ARGS__), FOVEA_TRY_CONCAT(fovea_try_result_, __LINE__))

// FOVEA_TRY_STATUS(expression): returns the error of a Status, goes on otherwise.
#define FOVEA_TRY_STATUS(...)                                  \
  do {                                                         \
    if (auto fovea_status = (__VA_ARGS__); !fovea_status.ok()) \
      return std::move(fovea_status).error();                  \
  } while (false)
