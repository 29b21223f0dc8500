#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fovea/options.h"
#include "fovea/request.h"
#include "fovea/response.h"
#include "fovea/result.h"

namespace fovea {

/// What was loaded, and the memory it takes in bytes.
struct ModelInfo {
  std::string family;  ///< "moondream2", "moondream-0.5b", "moondream3"
  std::string device;  ///< "cpu"
  std::string device_description;
  std::string precision;     ///< "f32", "bf16", "fp8" or "int4"
  std::string kv_precision;  ///< "f32", "bf16", "int8" or "fp8"
  std::int64_t num_parameters = 0;
  std::size_t checkpoint_bytes = 0;
  std::size_t weight_bytes = 0;
  std::size_t kv_cache_bytes = 0;
  std::size_t scratch_bytes = 0;
  int max_context = 0;  ///< positions of one sequence
  int vocab_size = 0;
  int image_tokens = 0;  ///< positions that one picture takes
  double load_ms = 0;
};

/// An adapter that requests can name.
struct AdapterInfo {
  std::string name;
  std::filesystem::path path;
  int rank = 0;
  int slot = -1;        ///< on the device; -1: it is brought there when a request needs it
  int num_running = 0;  ///< requests that are computed with it
  int num_waiting = 0;  ///< other requests in the engine that name it
};

/// What a caller wants to hear of a request. Called on the engine's delivery thread, which all
/// requests share: hand over, don't work.
struct Callbacks {
  StreamCallback on_text{};                         ///< pieces of the answer, in order
  std::function<void(Result<Response>)> on_done{};  ///< once, last
};

/// Where the engine stands, and what it has done since it was made.
struct EngineStats {
  int num_running = 0;  ///< requests whose answers are being generated
  int num_waiting = 0;  ///< all others in the engine
  int pages_total = 0, pages_free = 0;
  std::size_t image_cache_bytes = 0;
  std::int64_t num_finished = 0, num_cancelled = 0, num_failed = 0;
  std::int64_t num_steps = 0, num_preemptions = 0;
  std::int64_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  std::int64_t num_crops = 0;  ///< through the vision encoder
  std::int64_t num_image_hits = 0, num_image_misses = 0;
};

/// A loaded model that answers many requests at once. Thread-safe.
class Engine {
 public:
  /// Loads the model. Errors name the file, tensor or option that is wrong.
  static Result<std::unique_ptr<Engine>> create(const EngineOptions& options);
  /// Requests that are still running end with kCancelled.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Lines a request up and returns its id. Errors: what is wrong with the request; kOverloaded
  /// when max_queue requests are inside.
  Result<std::uint64_t> submit(Request request, Callbacks callbacks);

  /// Ends a request early: its on_done is told kCancelled, its memory is free within a step. No
  /// effect when it has ended already.
  void cancel(std::uint64_t id);

  /// Runs one request to its end. `on_text` may be empty and is called on the calling thread.
  /// Errors concern this request alone.
  Result<Response> run(const Request& request, const StreamCallback& on_text = {});

  /// Runs several requests side by side; those about one picture share it. Answers in the order of
  /// the requests.
  std::vector<Result<Response>> run_all(std::span<const Request> requests);

  /// Reads an adapter and lets requests name it; under a name that is taken, it takes the other's
  /// place for requests that come later. Returns when the file has been checked; it is brought to
  /// the device when there is a slot for it, or when a request needs it. Errors name the file and
  /// what does not fit; kFailedPrecondition when the engine has no slots.
  Status load_adapter(const std::string& name, const std::filesystem::path& path);
  /// Takes a name away. Requests that came before still end with it. Error: kNotFound.
  Status unload_adapter(const std::string& name);
  std::vector<AdapterInfo> adapters() const;

  /// Forgets the cached beginnings and pictures that no request uses.
  void drop_caches();

  /// The ids of a text, and the text of ids (those that stand for no text are skipped).
  std::vector<std::int32_t> tokenize(std::string_view utf8) const;
  std::string detokenize(std::span<const std::int32_t> ids) const;
  /// The bytes that a token stands for; half a character, maybe. Empty for special and unknown ids.
  std::string token_bytes(std::int32_t id) const;

  EngineStats stats() const;
  /// Counters and histograms as Prometheus text (format 0.0.4), in vLLM's names behind "fovea_".
  std::string metrics_text() const;
  const ModelInfo& info() const;

 private:
  class Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// What a model's files tell before its weights are read.
struct ModelSummary {
  std::string family;     ///< as in ModelInfo
  std::string stored_as;  ///< the type of most of its weights: "f32", "bf16", "f16", "f8e4m3", ...
  std::size_t checkpoint_bytes = 0;
};
/// Opens a model's files (as EngineOptions::model names them) and checks that they belong together,
/// the tokenizer included; reads no weight, so it takes no time and no memory to speak of. Errors
/// are those of Engine::create.
Result<ModelSummary> inspect_model(const std::filesystem::path& path);

/// What one backend found on this machine.
struct DeviceReport {
  std::string name;
  bool available = false;
  std::string description;  ///< the device, or why there is none
};
std::vector<DeviceReport> list_devices();

const char* version();

}  // namespace fovea
