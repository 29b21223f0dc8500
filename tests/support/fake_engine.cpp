#include "support/fake_engine.h"

#include <cstring>
#include <mutex>

namespace fovea {
namespace {

// Not in FakeEngine, which tests assign anew.
std::mutex& calls_mutex() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace

class Engine::Impl {};

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

Result<std::unique_ptr<Engine>> Engine::create(const EngineOptions& options) {
  auto& fake = testing::fake_engine();
  fake.created.push_back(options);
  for (const double fraction : fake.load_fractions) {
    if (options.on_load_progress) options.on_load_progress(fraction);
  }
  if (!fake.create_status.ok()) return fake.create_status.error();
  return std::unique_ptr<Engine>(new Engine(std::make_unique<Impl>()));
}

Result<Response> Engine::run(const Request& request, const StreamCallback& on_text) {
  auto& fake = testing::fake_engine();
  fake.requests.push_back(request);
  for (const std::string& piece : fake.pieces) {
    if (on_text && !on_text(piece)) return Error{ErrorCode::kCancelled, "cancelled"};
  }
  return fake.response;
}

std::vector<Result<Response>> Engine::run_all(std::span<const Request> requests) {
  auto& fake = testing::fake_engine();
  std::vector<Result<Response>> answers;
  for (const Request& request : requests) {
    fake.requests.push_back(request);
    answers.push_back(fake.responses.empty() ? fake.response : fake.responses.at(answers.size()));
  }
  return answers;
}

Result<std::uint64_t> Engine::submit(Request request, Callbacks callbacks) {
  auto& fake = testing::fake_engine();
  std::uint64_t id = 0;
  {
    const std::lock_guard lock(calls_mutex());
    fake.requests.push_back(request);
    id = fake.requests.size();
  }
  if (fake.on_submit) return fake.on_submit(request, std::move(callbacks));
  bool goes_on = true;
  for (const std::string& piece : fake.pieces) {
    goes_on = goes_on && (!callbacks.on_text || callbacks.on_text(piece));
  }
  callbacks.on_done(goes_on ? fake.response : Error{ErrorCode::kCancelled, "cancelled"});
  return id;
}

void Engine::cancel(std::uint64_t id) {
  auto& fake = testing::fake_engine();
  {
    const std::lock_guard lock(calls_mutex());
    fake.cancelled.push_back(id);
  }
  if (fake.on_cancel) fake.on_cancel(id);
}

// A token for each byte.
std::vector<std::int32_t> Engine::tokenize(std::string_view utf8) const {
  std::vector<std::int32_t> ids;
  for (const char c : utf8) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

std::string Engine::detokenize(std::span<const std::int32_t> ids) const {
  std::string text;
  for (const std::int32_t id : ids) text += static_cast<char>(id);
  return text;
}

std::string Engine::token_bytes(std::int32_t id) const {
  return std::string(1, static_cast<char>(id));
}

std::vector<AdapterInfo> Engine::adapters() const { return testing::fake_engine().adapters; }

EngineStats Engine::stats() const { return testing::fake_engine().stats; }

std::string Engine::metrics_text() const {
  return "# HELP fovea_num_requests_running Requests that are computed.\n"
         "# TYPE fovea_num_requests_running gauge\n"
         "fovea_num_requests_running{model_name=\"fake\"} 0\n";
}

const ModelInfo& Engine::info() const { return testing::fake_engine().info; }

Result<ModelSummary> inspect_model(const std::filesystem::path& path) {
  auto& fake = testing::fake_engine();
  fake.inspected.push_back(path);
  return fake.summary;
}

std::vector<DeviceReport> list_devices() {
  return {{"cpu", true, "2 threads, avx2"}, {"cuda", false, "not built in"}};
}

const char* version() { return "1.2.3"; }

Result<Image> decode_picture(std::span<const std::byte>, const PictureLimits&, bool) {
  return testing::fake_engine().decoded;
}

void draw_labels(Image&, std::span<const BoxLabel> boxes, std::span<const PointLabel> points) {
  const std::lock_guard lock(calls_mutex());
  auto& fake = testing::fake_engine();
  fake.boxes.assign(boxes.begin(), boxes.end());
  fake.points.assign(points.begin(), points.end());
}

Result<std::vector<std::byte>> encode_png(const Image&) {
  constexpr std::string_view kBytes = "a picture";
  std::vector<std::byte> bytes(kBytes.size());
  std::memcpy(bytes.data(), kBytes.data(), kBytes.size());
  return bytes;
}

namespace testing {

FakeEngine& fake_engine() {
  // The functions above have no other way to reach what a test set up.
  static FakeEngine fake;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)
  return fake;
}

}  // namespace testing
}  // namespace fovea
