#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "fovea/response.h"
#include "fovea/result.h"

namespace fovea {

/// What is said about one request once it has ended.
struct RequestRecord {
  std::chrono::system_clock::time_point received;  ///< printed in UTC
  std::string id;                                  ///< the engine's
  std::string request_id;                          ///< the caller's; empty: none
  std::string_view skill;
  std::string adapter;  ///< empty: none
  Usage usage;          ///< what of it is known
  FinishReason finish_reason = FinishReason::kStop;
  std::optional<Error> error;  ///< then there is no finish reason
  bool image_cached = false;   ///< the picture's embeddings were at hand
};

/// One line of JSON for each request. Says what it cost and how it ended, never what was asked,
/// shown or answered, unless `kContent` is chosen: then the error's message, which may quote the
/// caller, is added. One thread at a time.
class RequestLog {
 public:
  enum class Detail { kMetadata, kContent };
  /// Receives each line, without its line feed.
  using Sink = std::function<void(std::string_view line)>;

  /// Without a sink nothing is written.
  explicit RequestLog(Sink sink = {}, Detail detail = Detail::kMetadata)
      : sink_(std::move(sink)), detail_(detail) {}

  void write(const RequestRecord& record) const;

 private:
  Sink sink_;
  Detail detail_;
};

}  // namespace fovea
