#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include "http.h"

namespace fovea::server {

/// What the log says about one request and its answer: never what was asked or answered.
struct ExchangeRecord {
  std::chrono::system_clock::time_point received = std::chrono::system_clock::now();
  std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
  std::size_t num_bytes = 0;  ///< of the answer

  /// One line of JSON without its line feed. Status 499: the client went away before the end.
  std::string line(const HttpRequest& request, const std::string& route, int status) const;
};

}  // namespace fovea::server
