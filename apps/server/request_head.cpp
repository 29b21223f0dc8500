#include "request_head.h"

#include <boost/beast/core/string.hpp>
#include <string>

#include "request_id.h"
#include "router.h"

namespace fovea::server {

HttpRequest make_request(const boost::beast::http::request_header<>& head) {
  const auto text = [](boost::beast::string_view view) {
    return std::string(view.data(), view.size());
  };
  const auto header = [&](boost::beast::string_view name) { return text(head[name]); };
  HttpRequest request;
  request.method = text(head.method_string());
  const std::string target = text(head.target());
  request.path = normalise_path(target);
  const std::size_t question = target.find('?');
  if (question != std::string::npos) request.query = target.substr(question + 1);
  request.id = header("X-Request-Id");
  if (!is_good_request_id(request.id)) request.id = make_request_id();
  request.authorization = header("Authorization");
  request.moondream_auth = header("X-Moondream-Auth");
  request.host = header("Host");
  request.origin = header("Origin");
  request.access_control_request_method = header("Access-Control-Request-Method");
  return request;
}

}  // namespace fovea::server
