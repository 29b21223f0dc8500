#include "http_metrics.h"

#include <fmt/format.h>
#include <iterator>

namespace fovea::server {

void HttpMetrics::count(const std::string& route, int status) {
  const std::lock_guard lock(mutex_);
  ++counts_[{route, status}];
}

std::string HttpMetrics::text(std::string_view prefix) const {
  std::string text;
  const auto out = std::back_inserter(text);
  fmt::format_to(out,
                 "# HELP {0}http_connections Open connections.\n# TYPE {0}http_connections gauge\n"
                 "{0}http_connections {1}\n"
                 "# HELP {0}http_streams Answers that are being streamed.\n"
                 "# TYPE {0}http_streams gauge\n{0}http_streams {2}\n"
                 "# HELP {0}http_requests_total HTTP requests, by route and status.\n"
                 "# TYPE {0}http_requests_total counter\n",
                 prefix, connections_.load(), streams_.load());
  const std::lock_guard lock(mutex_);
  for (const auto& [key, count] : counts_) {
    fmt::format_to(out, "{}http_requests_total{{route=\"{}\",status=\"{}\"}} {}\n", prefix,
                   key.first, key.second, count);
  }
  return text;
}

std::string with_prefix(std::string_view metrics, std::string_view prefix) {
  constexpr std::string_view kOwn = "fovea_";
  if (prefix == kOwn) return std::string(metrics);
  std::string text;
  while (!metrics.empty()) {
    const std::size_t end = metrics.find('\n');
    std::string_view line = metrics.substr(0, end);
    metrics.remove_prefix(end == std::string_view::npos ? metrics.size() : end + 1);
    for (const std::string_view head : {"# HELP ", "# TYPE "}) {
      if (!line.starts_with(head)) continue;
      text += head;
      line.remove_prefix(head.size());
    }
    if (line.starts_with(kOwn)) {
      text += prefix;
      line.remove_prefix(kOwn.size());
    }
    text += line;
    text += '\n';
  }
  return text;
}

}  // namespace fovea::server
