#include "fovea/engine.h"

#include <mutex>

#include "backend/registry.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"
#include "base/try.h"
#include "engine/generator.h"
#include "io/checkpoint.h"
#include "io/tokenizer.h"
#include "model/model.h"
#include "model/tokenizer_fit.h"
#include "skills/registry.h"

namespace fovea {
namespace {

constexpr int kDefaultMaxContext = 4096;
constexpr int kPageSize = 16;
constexpr std::size_t kMaxConfigBytes = std::size_t{1} << 20;

Result<std::optional<json::value>> read_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "config.json";
  if (!std::filesystem::exists(path)) return std::optional<json::value>{};
  FOVEA_TRY(json::value document, json::parse_file(path, kMaxConfigBytes));
  return std::optional<json::value>(std::move(document));
}

Result<DType> choose_storage(Precision precision, const Checkpoint& checkpoint) {
  switch (precision) {
    case Precision::kF32:
      return DType::kF32;
    case Precision::kBf16:
      return DType::kBf16;
    case Precision::kAuto:
      break;
  }
  return natural_storage(checkpoint);
}

Status check_options(const EngineOptions& options) {
  if (options.model.empty()) return invalid_argument("no model was given");
  if (options.num_threads < 0 || options.num_threads > 1024) {
    return invalid_argument("threads {} must lie in 0..1024", options.num_threads);
  }
  if (options.max_context < 0)
    return invalid_argument("max_context {} must not be negative", options.max_context);
  const int divisor = options.compatibility.coordinate_divisor;
  if (divisor != 1024 && divisor != 1023) {
    return invalid_argument("coordinate_divisor {} must be 1024 or 1023", divisor);
  }
  return {};
}

}  // namespace

/// The composition root: picks the device, loads the model, hands the skills to the generator.
class Engine::Impl {
 public:
  static Result<std::unique_ptr<Impl>> create(const EngineOptions& options) {
    const double started_ms = now_ms();
    FOVEA_TRY_STATUS(check_options(options));
    std::unique_ptr<Impl> impl(new Impl);
    impl->compatibility_ = options.compatibility;
    FOVEA_TRY(impl->device_, create_device(options.device, {.num_threads = options.num_threads,
                                                            .cpu_isa = options.cpu_isa}));
    FOVEA_TRY(const Checkpoint checkpoint, Checkpoint::open(options.model));
    FOVEA_TRY(const auto config_json, read_config(checkpoint.folder()));
    FOVEA_TRY(ModelConfig config,
              resolve_config(checkpoint, config_json ? &*config_json : nullptr));
    FOVEA_TRY(Tokenizer tokenizer, Tokenizer::load(checkpoint.folder()));
    FOVEA_TRY_STATUS(check_tokenizer_fits(tokenizer, config));
    impl->tokenizer_ = std::make_unique<const Tokenizer>(std::move(tokenizer));
    FOVEA_TRY_STATUS(impl->load_model(checkpoint, std::move(config), options));
    FOVEA_TRY(impl->generator_,
              Generator::create(*impl->device_, *impl->model_,
                                skills::make_factory({impl->model_->config().prompts,
                                                      *impl->tokenizer_, impl->compatibility_}),
                                options));
    impl->describe(checkpoint, now_ms() - started_ms);
    return impl;
  }

  Result<Response> run(const Request& request, const StreamCallback& on_text) {
    const double submitted_ms = now_ms();
    const std::lock_guard turn(mutex_);
    const double queue_ms = now_ms() - submitted_ms;
    FOVEA_TRY(Response response, generator_->generate(request, on_text));
    response.usage.queue_ms = queue_ms;
    response.usage.ttft_ms += queue_ms;
    response.usage.total_ms += queue_ms;
    return response;
  }

  const ModelInfo& info() const { return info_; }

 private:
  Impl() = default;

  Status load_model(const Checkpoint& checkpoint, ModelConfig config,
                    const EngineOptions& options) {
    const Compatibility& compatibility = options.compatibility;
    ModelOptions model_options;
    FOVEA_TRY(model_options.storage, choose_storage(options.precision, checkpoint));
    model_options.page_size = kPageSize;
    model_options.max_context = options.max_context > 0
                                    ? options.max_context
                                    : std::min(config.text.max_context, kDefaultMaxContext);
    model_options.tau_activation =
        compatibility.tau_gelu_erf ? Activation::kGeluErf : Activation::kGeluTanh;
    model_options.region.erf_gelu = compatibility.region_gelu_erf;
    model_options.region.coordinate_divisor = compatibility.coordinate_divisor;
    model_options.pixels_in_fp32 = compatibility.pixels_in_fp32;
    model_options.on_progress = options.on_load_progress;
    FOVEA_TRY(model_, Model::load(checkpoint, std::move(config), *device_, model_options));
    return {};
  }

  void describe(const Checkpoint& checkpoint, double load_ms) {
    const ModelConfig& config = model_->config();
    info_ = {.family = config.family,
             .device = device_->name(),
             .device_description = device_->description(),
             .precision = std::string(dtype_name(model_->storage())),
             .num_parameters = model_->num_parameters(),
             .checkpoint_bytes = checkpoint.total_bytes(),
             .weight_bytes = model_->weight_bytes(),
             .kv_cache_bytes = generator_->kv_cache_bytes(),
             .scratch_bytes = generator_->scratch_bytes(),
             .max_context = model_->max_context(),
             .vocab_size = config.text.vocab_size,
             .image_tokens = config.vision.image_tokens(),
             .load_ms = load_ms};
  }

  // In the order of their lives: later ones refer to earlier ones.
  Compatibility compatibility_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<const Model> model_;
  std::unique_ptr<Generator> generator_;
  ModelInfo info_;
  std::mutex mutex_;  // one request at a time
};

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

Result<std::unique_ptr<Engine>> Engine::create(const EngineOptions& options) {
  FOVEA_TRY(auto impl, Impl::create(options));
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

Result<Response> Engine::run(const Request& request, const StreamCallback& on_text) {
  return impl_->run(request, on_text);
}

const ModelInfo& Engine::info() const { return impl_->info(); }

std::vector<DeviceReport> list_devices() {
  std::vector<DeviceReport> reports;
  for (BackendInfo& backend : list_backends()) {
    reports.push_back({std::move(backend.name), backend.available, std::move(backend.description)});
  }
  return reports;
}

const char* version() { return FOVEA_VERSION; }

}  // namespace fovea
