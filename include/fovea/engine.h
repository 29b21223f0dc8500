#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
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
  std::string precision;  ///< "f32" or "bf16"
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

/// A loaded model that answers requests. Thread-safe; requests of several threads take turns.
class Engine {
 public:
  /// Loads the model. Errors name the file, tensor or option that is wrong.
  static Result<std::unique_ptr<Engine>> create(const EngineOptions& options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Runs one request to its end on the calling thread. `on_text` may be empty. Errors concern this
  /// request alone.
  Result<Response> run(const Request& request, const StreamCallback& on_text = {});

  const ModelInfo& info() const;

 private:
  class Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// What one backend found on this machine.
struct DeviceReport {
  std::string name;
  bool available = false;
  std::string description;  ///< the device, or why there is none
};
std::vector<DeviceReport> list_devices();

const char* version();

}  // namespace fovea
