#include "picture_source.h"

#include <fmt/format.h>
#include <optional>
#include <utility>

#include "base/lower_case.h"
#include "wire/base64.h"

namespace fovea::server {
namespace {

bool starts_with_scheme(std::string_view text, std::string_view scheme) {
  return lower_case(text.substr(0, scheme.size())) == scheme;
}

// The base64 part of "data:image/png;base64,..."; the media type is not believed anyway.
std::optional<std::string_view> payload_of(std::string_view text) {
  if (!starts_with_scheme(text, "data:")) return text;
  const std::size_t comma = text.find(',');
  if (comma == std::string_view::npos || !text.substr(0, comma).ends_with(";base64")) {
    return std::nullopt;
  }
  return text.substr(comma + 1);
}

}  // namespace

void load_picture(const std::string& text, const std::string& param, UrlFetcher* fetcher,
                  const std::function<void(std::variant<Picture, ApiError>)>& done) {
  if (starts_with_scheme(text, "http://") || starts_with_scheme(text, "https://")) {
    if (fetcher == nullptr) {
      return done(bad_request(param, "invalid_value",
                              "this server fetches no pictures from URLs; send the picture's bytes "
                              "as a data URI"));
    }
    fetcher->fetch(text, [param, done](UrlFetcher::Fetched fetched) {
      if (auto* error = std::get_if<ApiError>(&fetched)) {
        error->param = param;
        return done(std::move(*error));
      }
      done(Picture(std::get<std::vector<std::byte>>(std::move(fetched))));
    });
    return;
  }
  const std::optional<std::string_view> payload = payload_of(text);
  auto bytes = payload ? wire::decode_base64(*payload) : std::nullopt;
  if (!bytes || bytes->empty()) {
    return done(bad_request(param, "image_decode_failed",
                            fmt::format("Field '{}' is neither a data URI of a picture nor its "
                                        "bytes in base64",
                                        param)));
  }
  done(Picture(std::move(*bytes)));
}

}  // namespace fovea::server
