#pragma once

#include <boost/json.hpp>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "http.h"

namespace fovea::server::testing {

/// Keeps what a handler answers. One thread.
class CollectingResponder final : public Responder {
 public:
  void respond(HttpResponse response) override { whole = std::move(response); }
  void begin_stream(HttpResponse response) override { head = std::move(response); }
  bool write(std::string_view event) override {
    if (!reads) return false;
    events += event;
    return true;
  }
  void end_stream() override { has_ended = true; }
  void abort_stream() override { was_aborted = true; }
  void on_gone(std::function<void()> gone) override { gones.push_back(std::move(gone)); }

  boost::json::value json() const { return boost::json::parse(whole->body); }
  /// The JSON of each event of the stream; "[DONE]" as a string.
  std::vector<boost::json::value> stream() const {
    std::vector<boost::json::value> list;
    std::string_view rest = events;
    while (!rest.empty()) {
      const std::size_t end = rest.find("\n\n");
      const std::string_view data = rest.substr(6, end - 6);
      list.push_back(data == "[DONE]" ? boost::json::value("[DONE]") : boost::json::parse(data));
      rest.remove_prefix(end + 2);
    }
    return list;
  }

  bool reads = true;
  std::optional<HttpResponse> whole, head;
  std::string events;
  bool has_ended = false, was_aborted = false;
  std::vector<std::function<void()>> gones;
};

}  // namespace fovea::server::testing
