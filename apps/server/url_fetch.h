#pragma once

#include <memory>

#include "picture_source.h"
#include "server_options.h"

namespace fovea::server {

/// A fetcher for the hosts that the options allow, with a thread of its own. Only addresses that
/// may be reached are connected to, whatever a name means; redirects are not followed, proxies not
/// used, and time and size are limited. When it ends, what is still being fetched fails.
Result<std::unique_ptr<UrlFetcher>> make_url_fetcher(const ServerOptions& options);

}  // namespace fovea::server
