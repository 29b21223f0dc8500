// What a network sends to the server's handlers, over an engine that answers at once: the input is
// a request in HTTP's own form. Whatever it is, it gets one answer, JSON where it says so.

#include <boost/asio/buffer.hpp>
#include <boost/beast/http.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/check.h"
#include "base/json.h"
#include "server/request_head.h"
#include "server/service.h"
#include "support/fake_engine.h"

namespace {

namespace http = boost::beast::http;
using namespace fovea;          // NOLINT(google-build-using-namespace)
using namespace fovea::server;  // NOLINT(google-build-using-namespace)

class OneAnswer final : public Responder {
 public:
  void respond(HttpResponse response) override {
    ++num_answers;
    if (response.content_type == "application/json" && !response.body.empty()) {
      FOVEA_CHECK(json::parse(response.body, "answer").ok(), "no JSON: {}", response.body);
    }
  }
  void begin_stream(HttpResponse) override { ++num_answers; }
  bool write(std::string_view event) override {
    FOVEA_CHECK(event.starts_with("data: ") && event.ends_with("\n\n"), "no event: {}", event);
    return true;
  }
  void end_stream() override {}
  void abort_stream() override {}
  void on_gone(std::function<void()>) override {}

  int num_answers = 0;
};

struct Fixture {
  ServerOptions options;
  Service service{options, nullptr};
  std::unique_ptr<Engine> engine = std::move(Engine::create({})).value();

  Fixture() {
    auto& fake = fovea::testing::fake_engine();
    fake.info.family = "moondream2";
    fake.pieces = {"A", " moon"};
    fake.response = Response{};
    fake.adapters = {{.name = "birds", .path = {}}};
    service.set_engine(*engine);
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Fixture fixture;
  http::request_parser<http::string_body> parser;
  parser.eager(true);
  parser.header_limit(16 * 1024);
  parser.body_limit(1 << 20);
  boost::system::error_code failure;
  std::size_t used = 0;
  while (used < size && !parser.is_done() && !failure) {
    const std::size_t taken = parser.put(boost::asio::buffer(data + used, size - used), failure);
    if (taken == 0) break;
    used += taken;
  }
  if (failure && failure != http::error::need_more) return 0;
  if (!parser.is_header_done()) return 0;
  HttpRequest request = make_request(parser.get());
  const auto answer = std::make_shared<OneAnswer>();
  if (auto refusal = fixture.service.check_head(request)) {
    answer->respond(std::move(*refusal));
  } else {
    request.body = std::move(parser.get().body());
    fixture.service.handle(request, answer);
  }
  FOVEA_CHECK(answer->num_answers == 1, "{} answers to {}", answer->num_answers, request.path);
  fovea::testing::fake_engine().requests.clear();
  return 0;
}
