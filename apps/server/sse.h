#pragma once

#include <string>
#include <string_view>

#include "http.h"

namespace fovea::server {

/// One event of a stream: a line of JSON (or "[DONE]") and an empty line. The blank after the colon
/// is not decoration: the official clients pass over events without it.
inline std::string sse_event(std::string_view data) {
  std::string event = "data: ";
  event += data;
  event += "\n\n";
  return event;
}

/// A comment, which readers skip: tells proxies and idle timers that the stream lives.
inline constexpr std::string_view kSsePing = ": ping\n\n";

/// The head of an answer of events.
inline HttpResponse sse_head() {
  return {.status = 200,
          .content_type = "text/event-stream; charset=utf-8",
          .headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}},
          .body = {}};
}

}  // namespace fovea::server
