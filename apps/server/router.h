#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>

#include "api_error.h"
#include "http.h"

namespace fovea::server {

/// "/v1//caption/?x" as "/v1/caption": slashes collapsed, none at the end, no query.
std::string normalise_path(std::string_view target);

/// What answers a route.
struct Route {
  std::function<void(const HttpRequest&, const std::shared_ptr<Responder>&)> handle;
  bool needs_key = true;
  std::string name;  ///< as metrics call it
};

/// Finds the handler of a method and a path. Built once, then read by several threads.
class Router {
 public:
  /// `path` in its normal form; one that ends in "/*" takes everything below.
  void add(const std::string& method, const std::string& path, Route route);

  /// The route, or why there is none (404, 405). HEAD finds what GET does. `allow` then receives
  /// the methods that the path has.
  std::variant<const Route*, ApiError> find(const HttpRequest& request, std::string* allow) const;

 private:
  const std::map<std::string, Route>* methods_of(const std::string& path) const;

  std::map<std::string, std::map<std::string, Route>> routes_;  // path, then method
};

}  // namespace fovea::server
