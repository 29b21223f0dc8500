#include "hub/download.h"

#include <charconv>
#include <fmt/format.h>
#include <system_error>

#include "base/error.h"
#include "base/try.h"
#include "hub/human.h"
#include "hub/part_file.h"

namespace fovea::hub {
namespace {

namespace fs = std::filesystem;

constexpr int kRangeNotSatisfiable = 416;

// Keeps a short body.
class TextSink final : public BodySink {
 public:
  TextSink(std::string what, std::size_t max_bytes)
      : what_(std::move(what)), max_bytes_(max_bytes) {}

  Status begin(const HttpResponse&) override {
    text_.clear();
    return {};
  }
  Status write(std::span<const std::byte> bytes) override {
    if (bytes.size() > max_bytes_ - text_.size()) {
      return error(ErrorCode::kResourceExhausted, "the server's answer about {} exceeds {} bytes",
                   what_, max_bytes_);
    }
    text_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return {};
  }
  std::string take() { return std::move(text_); }

 private:
  std::string what_;
  std::size_t max_bytes_;
  std::string text_;
};

// A header's ETag without its quotes and the mark of a weak one.
std::string bare_etag(std::string etag) {
  if (etag.starts_with("W/")) etag.erase(0, 2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') {
    return etag.substr(1, etag.size() - 2);
  }
  return etag;
}

std::optional<std::uint64_t> number_in(const std::string& text) {
  std::uint64_t number = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || failure != std::errc() || end != text.data() + text.size()) return {};
  return number;
}

}  // namespace

Status Downloader::receive(HttpRequest request, const RemoteFile& file, PartFile& part) {
  Retrier retrier(retries_, events_);
  const std::uint64_t done_before = progress_.done;
  part.on_bytes([&](std::uint64_t bytes) {
    retrier.reset();
    progress_.received += bytes;
    progress_.done = done_before + part.bytes();
    if (events_.on_progress) events_.on_progress(progress_);
  });
  while (!part.is_complete()) {
    request.range_begin = part.bytes();
    request.if_range = part.bytes() > 0 ? part.etag() : std::string();
    HttpOutcome outcome = transport_.send(request, part);
    if (outcome.status.ok() && outcome.response.is_success()) {
      if (part.is_complete()) break;
      // It ended without an error, but too early: no length was announced.
      outcome.status = error(ErrorCode::kIo, "the server broke off");
    } else if (outcome.response.status == kRangeNotSatisfiable && part.bytes() > 0) {
      FOVEA_TRY_STATUS(part.restart());
      continue;
    }
    if (retrier.again(outcome)) continue;
    if (outcome.status.ok())
      return status_error(outcome.response, file.name, !request.token.empty());
    return error(outcome.status.error().code, "{}: {}", file.name, outcome.status.error().message);
  }
  return {};
}

Status Downloader::fetch(const std::string& url, const std::string& token, const RemoteFile& file,
                         const fs::path& folder) {
  progress_.file = file.name;
  std::error_code failure;
  if (fs::exists(folder / file.name, failure)) {
    if (has_digest(folder / file.name, file)) {
      progress_.done += *file.size;
      return {};
    }
    fs::remove(folder / file.name, failure);
  }
  FOVEA_TRY(const std::unique_ptr<PartFile> part, PartFile::open(folder, file));
  if (part->bytes() > 0) {
    events_.say(fmt::format("{}: {} of {} are here already", file.name, human_bytes(part->bytes()),
                            human_bytes(*file.size)));
  }
  const std::uint64_t done_before = progress_.done;
  for (int round = 0; round < 2; ++round) {
    progress_.done = done_before;
    FOVEA_TRY_STATUS(receive({.url = url, .token = token}, file, *part));
    FOVEA_TRY(const bool is_right, part->finish());
    progress_.done = done_before + *file.size;
    if (is_right) return {};
    if (round == 0) {
      events_.say(fmt::format("{}: the sum is wrong; once more from the beginning", file.name));
    }
  }
  return error(ErrorCode::kIo, "{}: what the server sends is not what the hub lists (sum {})",
               file.name, file.digest->hex);
}

Result<std::string> Downloader::fetch_text(const std::string& url, const std::string& token,
                                           const std::string& what, std::size_t max_bytes) {
  Retrier retrier(retries_, events_);
  for (;;) {
    TextSink sink(what, max_bytes);
    const HttpOutcome outcome = transport_.send({.url = url, .token = token}, sink);
    if (outcome.status.ok() && outcome.response.is_success()) return sink.take();
    if (retrier.again(outcome)) continue;
    if (!outcome.status.ok()) {
      return error(outcome.status.error().code, "{}: {}", what, outcome.status.error().message);
    }
    return status_error(outcome.response, what, !token.empty());
  }
}

Status Downloader::look_up(const std::string& url, const std::string& token, RemoteFile& file) {
  Retrier retrier(retries_, events_);
  for (;;) {
    TextSink sink(file.name, 0);
    // The hub's own answer has the sum; what it redirects to knows only its own tags.
    const HttpOutcome outcome = transport_.send(
        {.url = url, .token = token, .head = true, .follow_elsewhere = false}, sink);
    const int status = outcome.response.status;
    if (outcome.status.ok() && status >= 200 && status < 400) {
      const std::string linked = bare_etag(outcome.response.header("x-linked-etag"));
      const bool is_linked = !linked.empty();
      if (!file.digest) {
        file.digest = parse_digest(is_linked ? linked : bare_etag(outcome.response.header("etag")));
      }
      if (!file.size) {
        file.size =
            number_in(outcome.response.header(is_linked ? "x-linked-size" : "content-length"));
      }
      if (file.digest && file.size) return {};
      return error(ErrorCode::kFailedPrecondition,
                   "the hub tells no {} of {}: what comes could not be checked",
                   file.digest ? "size" : "sum", file.name);
    }
    if (retrier.again(outcome)) continue;
    if (!outcome.status.ok()) return outcome.status.error();
    return status_error(outcome.response, file.name, !token.empty());
  }
}

}  // namespace fovea::hub
