#pragma once

#include <boost/asio/io_context.hpp>
#include <memory>

#include "picture_source.h"
#include "server_options.h"

namespace fovea::server {

/// A fetcher for the hosts that the options allow. A name is resolved once; only addresses that may
/// be reached are connected to, redirects are not followed, and time and size are limited. Both
/// arguments outlive it.
std::unique_ptr<UrlFetcher> make_url_fetcher(boost::asio::io_context& context,
                                             const ServerOptions& options);

}  // namespace fovea::server
