#pragma once

#include <boost/beast/http/fields.hpp>
#include <boost/beast/http/message.hpp>

#include "http.h"

namespace fovea::server {

/// What handlers get to see of a request's head. The body is left for later.
HttpRequest make_request(const boost::beast::http::request_header<>& head);

}  // namespace fovea::server
