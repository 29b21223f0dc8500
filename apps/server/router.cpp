#include "router.h"

#include <fmt/format.h>
#include <utility>

namespace fovea::server {

std::string normalise_path(std::string_view target) {
  // A proxy's request names the scheme and the host too.
  if (!target.starts_with('/')) {
    const std::size_t scheme = target.find("://");
    if (scheme != std::string_view::npos) {
      const std::size_t slash = target.find('/', scheme + 3);
      target = slash == std::string_view::npos ? "/" : target.substr(slash);
    }
  }
  std::string path;
  for (const char c : target.substr(0, target.find_first_of("?#"))) {
    if (c != '/' || path.empty() || path.back() != '/') path += c;
  }
  if (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

void Router::add(const std::string& method, const std::string& path, Route route) {
  routes_[path].insert_or_assign(method, std::move(route));
}

const std::map<std::string, Route>* Router::methods_of(const std::string& path) const {
  if (const auto exact = routes_.find(path); exact != routes_.end()) return &exact->second;
  for (std::size_t slash = path.rfind('/'); slash != std::string::npos && slash > 0;
       slash = path.rfind('/', slash - 1)) {
    const auto below = routes_.find(path.substr(0, slash) + "/*");
    if (below != routes_.end()) return &below->second;
  }
  return nullptr;
}

std::variant<const Route*, ApiError> Router::find(const HttpRequest& request,
                                                  std::string* allow) const {
  const auto* methods = methods_of(request.path);
  if (methods == nullptr) {
    return not_found("not_found", fmt::format("there is no {} here", request.path.substr(0, 200)));
  }
  const auto found = methods->find(request.method == "HEAD" ? "GET" : request.method);
  if (found != methods->end()) return &found->second;
  std::string names;
  for (const auto& [method, route] : *methods) names += (names.empty() ? "" : ", ") + method;
  ApiError refusal =
      bad_request("", "method_not_allowed", fmt::format("{} takes {}", request.path, names));
  refusal.status = 405;
  *allow = std::move(names);
  return refusal;
}

}  // namespace fovea::server
