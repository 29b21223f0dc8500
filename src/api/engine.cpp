#include "fovea/engine.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <fmt/format.h>
#include <mutex>
#include <optional>

#include "backend/registry.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/math.h"
#include "base/thread_pool.h"
#include "base/try.h"
#include "engine/engine_loop.h"
#include "engine/kv_cache.h"
#include "engine/model_adapter_store.h"
#include "engine/model_runner.h"
#include "io/checkpoint.h"
#include "io/fingerprint.h"
#include "io/tokenizer.h"
#include "model/adapter.h"
#include "model/model.h"
#include "model_files.h"
#include "skills/registry.h"

namespace fovea {
namespace {

constexpr int kDefaultMaxContext = 4096;
constexpr int kPageSize = 16;
constexpr std::size_t kLeastImageCache = std::size_t{256} << 20;
constexpr std::size_t kLeastForWork = std::size_t{3} << 29;  // of a GPU's memory, beside the caches
constexpr int kMaxSequences = 1024;
constexpr int kMaxAdapterSlots = 256;
constexpr int kLeastMaxRank = 32;  // of adapter slots whose largest rank was not named
constexpr std::size_t kMaxPages = std::size_t{1} << 24;

Result<DType> choose_storage(Precision precision, const Checkpoint& checkpoint) {
  switch (precision) {
    case Precision::kF32:
      return DType::kF32;
    case Precision::kBf16:
    case Precision::kFp8:
    case Precision::kInt4:
      return DType::kBf16;
    case Precision::kAuto:
      break;
  }
  return natural_storage(checkpoint);
}

// Of the large matrices, where it is not that of all.
std::optional<DType> choose_block_storage(Precision precision) {
  if (precision == Precision::kFp8) return DType::kF8E4M3;
  if (precision == Precision::kInt4) return DType::kInt4;
  return std::nullopt;
}

// What users call a model's weights.
std::string precision_name(Precision precision, DType storage) {
  if (precision == Precision::kFp8) return "fp8";
  if (precision == Precision::kInt4) return "int4";
  return std::string(dtype_name(storage));
}

// The backends' i8 and f8e4m3 pages are what users call int8 and fp8.
DType choose_kv_dtype(KvPrecision precision, DType storage) {
  switch (precision) {
    case KvPrecision::kF32:
      return DType::kF32;
    case KvPrecision::kBf16:
      return DType::kBf16;
    case KvPrecision::kInt8:
      return DType::kI8;
    case KvPrecision::kFp8:
      return DType::kF8E4M3;
    case KvPrecision::kAuto:
      break;
  }
  return storage;
}

std::string kv_name(DType dtype) {
  if (dtype == DType::kI8) return "int8";
  return dtype == DType::kF8E4M3 ? "fp8" : std::string(dtype_name(dtype));
}

Status check_options(const EngineOptions& options) {
  if (options.model.empty()) return invalid_argument("no model was given");
  if (options.num_threads < 0 || options.num_threads > 1024) {
    return invalid_argument("threads {} must lie in 0..1024", options.num_threads);
  }
  if (options.max_context < 0)
    return invalid_argument("max_context {} must not be negative", options.max_context);
  if (options.max_sequences < 1 || options.max_sequences > kMaxSequences) {
    return invalid_argument("max_sequences {} must lie in 1..{}", options.max_sequences,
                            kMaxSequences);
  }
  if (options.max_queue < 1)
    return invalid_argument("max_queue {} must be at least 1", options.max_queue);
  if (!(options.max_stall_ms >= 0))
    return invalid_argument("max_stall_ms {} must be at least 0", options.max_stall_ms);
  if (options.adapter_slots < 0 || options.adapter_slots > kMaxAdapterSlots) {
    return invalid_argument("adapter_slots {} must lie in 0..{}", options.adapter_slots,
                            kMaxAdapterSlots);
  }
  if (options.max_adapter_rank < 0 || options.max_adapter_rank > kMaxLoraRank) {
    return invalid_argument("max_adapter_rank {} must lie in 0..{}", options.max_adapter_rank,
                            kMaxLoraRank);
  }
  const int divisor = options.compatibility.coordinate_divisor;
  if (divisor != 1024 && divisor != 1023) {
    return invalid_argument("coordinate_divisor {} must be 1024 or 1023", divisor);
  }
  return {};
}

}  // namespace

/// The composition root: picks the device, loads the model, hands the skills to the loop.
class Engine::Impl {
 public:
  static Result<std::unique_ptr<Impl>> create(const EngineOptions& options) {
    const double started_ms = now_ms();
    FOVEA_TRY_STATUS(check_options(options));
    std::unique_ptr<Impl> impl(new Impl);
    impl->compatibility_ = options.compatibility;
    impl->precision_ = options.precision;
    FOVEA_TRY(impl->device_,
              create_device(options.device, {.num_threads = options.num_threads,
                                             .cpu_isa = options.cpu_isa,
                                             .batch_invariant = options.batch_invariant}));
    FOVEA_TRY(ModelFiles files, open_model(options.model));
    const Checkpoint& checkpoint = files.checkpoint;
    impl->tokenizer_ = std::make_unique<const Tokenizer>(std::move(files.tokenizer));
    FOVEA_TRY_STATUS(impl->load_model(checkpoint, std::move(files.config), options));
    FOVEA_TRY_STATUS(impl->make_adapter_slots(options));
    FOVEA_TRY_STATUS(impl->open_image_store(checkpoint, options));
    FOVEA_TRY_STATUS(impl->start(options));
    FOVEA_TRY_STATUS(impl->add_adapters(options));
    impl->describe(checkpoint, now_ms() - started_ms);
    return impl;
  }

  EngineLoop& loop() { return *loop_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const ModelInfo& info() const { return info_; }

 private:
  Impl() = default;

  Status load_model(const Checkpoint& checkpoint, ModelConfig config,
                    const EngineOptions& options) {
    const Compatibility& compatibility = options.compatibility;
    ModelOptions model_options;
    FOVEA_TRY(model_options.storage, choose_storage(options.precision, checkpoint));
    model_options.block_storage = choose_block_storage(options.precision);
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

  // Slots for adapters, as large as the largest may need.
  Status make_adapter_slots(const EngineOptions& options) {
    AdapterSlotLimits limits{.num_slots = options.adapter_slots, .max_rank = kLeastMaxRank};
    for (const auto& [name, path] : options.adapters) {
      FOVEA_TRY(Adapter adapter, fovea::load_adapter(path, model_->config(), model_->storage()));
      limits.max_rank = std::max(limits.max_rank, adapter.rank);
      first_adapters_.push_back(std::move(adapter));
    }
    if (limits.num_slots == 0) limits.num_slots = static_cast<int>(options.adapters.size());
    if (limits.num_slots == 0) return {};
    if (options.max_adapter_rank > 0) limits.max_rank = options.max_adapter_rank;
    FOVEA_TRY(adapters_,
              ModelAdapterStore::create(*device_, model_->config(), model_->storage(), limits));
    return {};
  }

  Status add_adapters(const EngineOptions& options) {
    for (std::size_t i = 0; i < options.adapters.size(); ++i) {
      const auto& [name, path] = options.adapters[i];
      if (const auto taken = loop_->adapters().find(name); taken.ok() && !name.empty())
        return invalid_argument("two adapters are named {}", name);
      FOVEA_TRY(AdapterContents contents, adapters_->take(path, std::move(first_adapters_[i])));
      FOVEA_TRY_STATUS(loop_->adapters().add(name, path, std::move(contents)));
    }
    first_adapters_.clear();
    return {};
  }

  // Pages of the KV pool: what was asked for, or room for every sequence within a share of the
  // memory that is free; one sequence of full length at least.
  Result<int> choose_num_pages(const EngineOptions& options, std::size_t image_bytes) const {
    const TextConfig& text = model_->config().text;
    const std::size_t page_bytes = PagedKvCache::page_bytes(text, kv_dtype(options), kPageSize);
    const int one = ceil_div(model_->max_context(), kPageSize);
    if (options.kv_cache_bytes > 0) {
      const std::size_t pages = options.kv_cache_bytes / page_bytes;
      const int least = ceil_div(text.prefix_attn + 1, kPageSize) + 1;
      if (pages < static_cast<std::size_t>(least)) {
        return invalid_argument("kv_cache_bytes {} holds {} pages; {} ({} bytes) are the least",
                                options.kv_cache_bytes, pages, least, least * page_bytes);
      }
      return static_cast<int>(std::min<std::size_t>(pages, kMaxPages));
    }
    std::size_t memory = memory_for_caches();
    if (device_->has_own_memory()) memory -= std::min(memory, image_bytes);
    const std::size_t affordable = memory / page_bytes;
    // Beginnings that are kept take all of a device's own memory, of the host's as much again three
    // times.
    const std::size_t sequences =
        static_cast<std::size_t>(one) * static_cast<std::size_t>(options.max_sequences);
    std::size_t wanted = sequences;
    if (options.keep_prefixes) wanted = device_->has_own_memory() ? kMaxPages : 4 * sequences;
    return std::max(one, static_cast<int>(std::min({wanted, affordable, kMaxPages})));
  }

  // What may hold keys, values and encoded pictures: nine tenths of what is free of a device's own
  // memory, less on a small one, because activations, pictures at work and workspaces are still to
  // come; a quarter of the host's, which others need too.
  std::size_t memory_for_caches() const {
    const std::size_t free = device_->free_memory();
    if (!device_->has_own_memory()) return free / 4;
    return free - std::min(free, std::max(free / 10, kLeastForWork));
  }

  // Encoded pictures are small beside their keys and values: a sixteenth holds many more of them.
  std::size_t image_cache_bytes(const EngineOptions& options) const {
    if (options.image_cache_bytes) return *options.image_cache_bytes;
    return device_->has_own_memory() ? std::max(kLeastImageCache, memory_for_caches() / 16)
                                     : kLeastImageCache;
  }

  DType kv_dtype(const EngineOptions& options) const {
    return choose_kv_dtype(options.kv_precision, model_->storage());
  }

  Status open_image_store(const Checkpoint& checkpoint, const EngineOptions& options) {
    if (options.image_cache_folder.empty()) return {};
    const std::string narrow =
        choose_block_storage(precision_) ? " " + precision_name(precision_, model_->storage()) : "";
    const std::string model =
        fmt::format("{} {} {}{} {}{}", fingerprint(checkpoint), model_->config().family,
                    dtype_name(model_->storage()), narrow, compatibility_.pixels_in_fp32,
                    options.batch_invariant ? " invariant" : "");
    FOVEA_TRY(ImageStore store, ImageStore::open(options.image_cache_folder, model,
                                                 options.image_cache_folder_bytes));
    image_store_.emplace(std::move(store));
    return {};
  }

  Status start(const EngineOptions& options) {
    const ModelConfig& config = model_->config();
    const std::size_t image_bytes = image_cache_bytes(options);
    FOVEA_TRY(const int num_pages, choose_num_pages(options, image_bytes));
    FOVEA_TRY(PagedKvCache kv, PagedKvCache::create(*device_, config.text, kv_dtype(options),
                                                    num_pages, model_->page_size()));
    kv_ = std::make_unique<PagedKvCache>(std::move(kv));
    FOVEA_TRY(runner_,
              ModelRunner::create(*device_, *model_, *kv_,
                                  {.sample_coordinates = compatibility_.sample_coordinates,
                                   .round_outputs_to_bf16 = compatibility_.round_outputs_to_bf16,
                                   .max_sequences = options.max_sequences,
                                   .depth = device_->steps_in_flight(),
                                   .adapters = adapters_ ? &adapters_->slots() : nullptr}));
    const VisionConfig& vision = config.vision;
    LoopOptions loop;
    loop.scheduler.max_sequences = options.max_sequences;
    loop.scheduler.max_rows = runner_->max_rows();
    loop.scheduler.max_crops = runner_->max_crops();
    loop.scheduler.max_stall_ms = options.max_stall_ms;
    loop.picture_limits = options.picture_limits;
    loop.mask_first_token = compatibility_.mask_first_token;
    loop.max_queue = options.max_queue;
    loop.picture_threads = options.num_threads > 0 ? options.num_threads : usable_processors();
    loop.image_cache_bytes = image_bytes;
    loop.image_store = std::move(image_store_);
    if (options.request_log) {
      loop.log.emplace(options.request_log, options.log_content ? RequestLog::Detail::kContent
                                                                : RequestLog::Detail::kMetadata);
    }
    const ModelFacts facts{.bos = config.prompts.bos,
                           .eos = config.prompts.eos,
                           .vocab_size = config.text.vocab_size,
                           .image_tokens = vision.image_tokens(),
                           .max_context = model_->max_context(),
                           .page_size = model_->page_size(),
                           .crops = {vision.crop_size, vision.enc_patch_size, vision.overlap_margin,
                                     vision.max_crops}};
    loop_ = std::make_unique<EngineLoop>(
        *runner_, kv_->pages(), facts,
        skills::make_factory({config.prompts, *tokenizer_, compatibility_}), loop, adapters_.get());
    return {};
  }

  void describe(const Checkpoint& checkpoint, double load_ms) {
    const ModelConfig& config = model_->config();
    info_ = {.family = config.family,
             .device = device_->name(),
             .device_description = device_->description(),
             .precision = precision_name(precision_, model_->storage()),
             .kv_precision = kv_name(kv_->layers().front().k.dtype),
             .num_parameters = model_->num_parameters(),
             .checkpoint_bytes = checkpoint.total_bytes(),
             .weight_bytes = model_->weight_bytes(),
             .kv_cache_bytes = kv_->size_bytes(),
             .scratch_bytes = runner_->activations().size_bytes(),
             .max_context = model_->max_context(),
             .vocab_size = config.text.vocab_size,
             .image_tokens = config.vision.image_tokens(),
             .load_ms = load_ms};
  }

  // In the order of their lives: later ones refer to earlier ones.
  Compatibility compatibility_;
  Precision precision_ = Precision::kAuto;
  std::unique_ptr<Device> device_;
  std::unique_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<const Model> model_;
  std::optional<ImageStore> image_store_;  // until the loop has it
  std::vector<Adapter> first_adapters_;    // until the loop has them
  std::unique_ptr<ModelAdapterStore> adapters_;
  std::unique_ptr<PagedKvCache> kv_;
  std::unique_ptr<ModelRunner> runner_;
  ModelInfo info_;
  std::unique_ptr<EngineLoop> loop_;
};

namespace {

/// Carries one request's answer from the delivery thread to a caller that waits for it.
class Mailbox {
 public:
  void put_text(std::string_view text) {
    const std::lock_guard lock(mutex_);
    texts_.emplace_back(text);
    changed_.notify_one();
  }
  void put_answer(Result<Response> answer) {
    const std::lock_guard lock(mutex_);
    answer_ = std::move(answer);
    changed_.notify_one();
  }
  /// The next piece, or nothing once the answer is there.
  std::optional<std::string> wait_for_text() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !texts_.empty() || answer_.has_value(); });
    if (texts_.empty()) return std::nullopt;
    std::string text = std::move(texts_.front());
    texts_.pop_front();
    return text;
  }
  /// Once wait_for_text() has returned nothing.
  Result<Response> take_answer() {
    const std::lock_guard lock(mutex_);
    return std::move(*answer_);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> texts_;
  std::optional<Result<Response>> answer_;
};

}  // namespace

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

Result<std::unique_ptr<Engine>> Engine::create(const EngineOptions& options) {
  FOVEA_TRY(auto impl, Impl::create(options));
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

Result<std::uint64_t> Engine::submit(Request request, Callbacks callbacks) {
  return impl_->loop().submit(std::move(request), std::move(callbacks));
}

void Engine::cancel(std::uint64_t id) { impl_->loop().cancel(id); }

Result<Response> Engine::run(const Request& request, const StreamCallback& on_text) {
  const auto mailbox = std::make_shared<Mailbox>();
  Callbacks callbacks;
  if (on_text) {
    callbacks.on_text = [mailbox](std::string_view text) {
      mailbox->put_text(text);
      return true;
    };
  }
  callbacks.on_done = [mailbox](Result<Response> answer) {
    mailbox->put_answer(std::move(answer));
  };
  FOVEA_TRY(const std::uint64_t id, submit(request, std::move(callbacks)));
  bool goes_on = true;
  while (const std::optional<std::string> text = mailbox->wait_for_text()) {
    if (!goes_on) continue;
    try {
      goes_on = on_text(*text);
    } catch (...) {
      goes_on = false;
    }
    if (!goes_on) cancel(id);
  }
  // The last piece may be refused when the answer is complete already.
  if (!goes_on) return error(ErrorCode::kCancelled, "the caller stopped the request");
  return mailbox->take_answer();
}

std::vector<Result<Response>> Engine::run_all(std::span<const Request> requests) {
  std::vector<std::shared_ptr<Mailbox>> mailboxes;
  for (const Request& request : requests) {
    const auto mailbox = std::make_shared<Mailbox>();
    Callbacks callbacks;
    callbacks.on_done = [mailbox](Result<Response> answer) {
      mailbox->put_answer(std::move(answer));
    };
    const Result<std::uint64_t> id = submit(request, std::move(callbacks));
    if (!id.ok()) mailbox->put_answer(id.error());
    mailboxes.push_back(mailbox);
  }
  std::vector<Result<Response>> answers;
  for (const auto& mailbox : mailboxes) {
    mailbox->wait_for_text();
    answers.push_back(mailbox->take_answer());
  }
  return answers;
}

Status Engine::load_adapter(const std::string& name, const std::filesystem::path& path) {
  return impl_->loop().adapters().load(name, path);
}

Status Engine::unload_adapter(const std::string& name) {
  return impl_->loop().adapters().unload(name);
}

std::vector<AdapterInfo> Engine::adapters() const { return impl_->loop().adapters().list(); }

std::vector<std::int32_t> Engine::tokenize(std::string_view utf8) const {
  std::vector<std::int32_t> ids;
  for (const TokenId id : impl_->tokenizer().encode(utf8)) ids.push_back(id.value());
  return ids;
}

std::string Engine::detokenize(std::span<const std::int32_t> ids) const {
  std::vector<TokenId> tokens;
  for (const std::int32_t id : ids) tokens.emplace_back(id);
  return impl_->tokenizer().decode(tokens);
}

std::string Engine::token_bytes(std::int32_t id) const {
  return std::string(impl_->tokenizer().token_bytes(TokenId(id)));
}

void Engine::drop_caches() { impl_->loop().drop_caches(); }

std::string Engine::metrics_text() const {
  const AdapterManager& adapters = impl_->loop().adapters();
  return write_prometheus(impl_->loop().metrics(), impl_->info().family,
                          {.max_slots = adapters.num_slots(), .adapters = adapters.list()});
}

EngineStats Engine::stats() const { return impl_->loop().stats(); }

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
