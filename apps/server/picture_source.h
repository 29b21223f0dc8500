#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "fovea/request.h"

#include "api_error.h"

namespace fovea::server {

/// Fetches pictures that requests name by URL.
class UrlFetcher {
 public:
  using Fetched = std::variant<std::vector<std::byte>, ApiError>;
  virtual ~UrlFetcher() = default;
  /// Calls `done` once, from any thread, at once or later.
  virtual void fetch(const std::string& url, std::function<void(Fetched)> done) = 0;
};

/// Turns the text of a picture field into a picture: a data URI, bare base64, or a URL where a
/// fetcher is given. Paths and file:// are never opened. `done` is called once: at once but for a
/// URL.
void load_picture(const std::string& text, const std::string& param, UrlFetcher* fetcher,
                  const std::function<void(std::variant<Picture, ApiError>)>& done);

}  // namespace fovea::server
