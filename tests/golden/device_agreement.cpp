// Compares a model on one device and in one precision with the same model on another: a picture
// through the encoder, a question's prompt, and a few decoded tokens, all fed with the tokens that
// the reference chose. Says how far each stage is off, and fails when that is more than twice what
// the precision must be expected to cost (agreement.h).
//
//   make_checkpoint /tmp/md2 --model 2b
//   device_agreement /tmp/md2 --picture assets/harbour.png --reference cpu:f32 cpu:bf16 cuda:bf16

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fmt/format.h>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>

#include "backend/registry.h"
#include "base/error.h"
#include "base/json.h"
#include "base/thread_pool.h"
#include "base/try.h"
#include "engine/kv_cache.h"
#include "engine/model_runner.h"
#include "engine/sequence.h"
#include "golden/agreement.h"
#include "image/crops.h"
#include "image/decode.h"
#include "io/checkpoint.h"
#include "io/tokenizer.h"
#include "model/model.h"
#include "tensor/half.h"

namespace fovea::agreement {
namespace {

constexpr int kPageSize = 16;
constexpr int kLogitRows = 64;  // of the prompt's end
// In f32 it is the order of sums that counts, as in the golden stages.
constexpr double kLeastLimit = 1e-5;

/// "cuda:fp8", "cuda:int4", "cpu:f32"; "cpu/avx512:bf16" forces an instruction set;
/// "cuda:bf16+int8" has keys and values in 8 bits (int8 or fp8).
struct RunSpec {
  std::string text, device, isa;
  DType storage = DType::kBf16;
  DType blocks = DType::kBf16;  ///< of the large matrices
  DType pages = DType::kBf16;   ///< of keys and values

  static Result<RunSpec> parse(const std::string& text) {
    RunSpec spec{.text = text, .device = {}, .isa = {}};
    const std::size_t colon = text.rfind(':');
    std::string dtype = colon == std::string::npos ? "" : text.substr(colon + 1);
    std::string pages;
    if (const std::size_t plus = dtype.find('+'); plus != std::string::npos) {
      pages = dtype.substr(plus + 1);
      dtype.resize(plus);
    }
    if (dtype == "f32") {
      spec.storage = spec.blocks = DType::kF32;
    } else if (dtype == "fp8") {
      spec.blocks = DType::kF8E4M3;
    } else if (dtype == "int4") {
      spec.blocks = DType::kInt4;
    } else if (dtype != "bf16") {
      return invalid_argument("\"{}\": DEVICE: and f32, bf16, fp8 or int4", text);
    }
    spec.pages = spec.storage;
    if (pages == "int8") {
      spec.pages = DType::kI8;
    } else if (pages == "fp8") {
      spec.pages = DType::kF8E4M3;
    } else if (!pages.empty()) {
      return invalid_argument("\"{}\": keys and values in int8 or fp8", text);
    }
    spec.device = text.substr(0, colon);
    if (const std::size_t slash = spec.device.find('/'); slash != std::string::npos) {
      spec.isa = spec.device.substr(slash + 1);
      spec.device.resize(slash);
    }
    return spec;
  }
};

/// What every run is given.
struct Question {
  Crops crops;
  std::vector<TokenId> prompt;
  int num_tokens = 0;          ///< decoded behind it
  std::vector<TokenId> words;  ///< those tokens; empty for the run that chooses them
};

/// What a run computed.
struct Stages {
  Rows features;        ///< encoder's output [crops * tokens, E]
  Rows embeddings;      ///< [tokens, D]
  Rows hidden;          ///< behind all layers, every position of the prompt [T, D]
  Rows logits;          ///< of the prompt's last positions [kLogitRows, V]
  Rows decoded_hidden;  ///< of each decoded token [num_tokens, D]
  Rows decoded_logits;
  std::vector<TokenId> words;
  double load_s = 0, run_s = 0;
};

/// A model's description; no weight has been read.
struct Opened {
  Checkpoint checkpoint;
  ModelConfig config;

  static Result<Opened> open(const std::filesystem::path& path) {
    FOVEA_TRY(Checkpoint checkpoint, Checkpoint::open(path));
    std::optional<json::value> document;
    if (const auto file = checkpoint.folder() / "config.json"; std::filesystem::exists(file)) {
      FOVEA_TRY(document, json::parse_file(file, 1 << 20));
    }
    FOVEA_TRY(ModelConfig config, resolve_config(checkpoint, document ? &*document : nullptr));
    return Opened{std::move(checkpoint), std::move(config)};
  }
};

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// A model on a device, with what a pass needs.
class Run {
 public:
  /// Keys and values of the reference are f32.
  static Result<std::unique_ptr<Run>> load(const std::filesystem::path& path, const RunSpec& spec,
                                           bool is_reference) {
    FOVEA_TRY(Opened files, Opened::open(path));
    std::unique_ptr<Run> run(new Run);
    FOVEA_TRY(run->device_, create_device(spec.device, {.cpu_isa = spec.isa}));
    ModelOptions options;
    options.storage = spec.storage;
    if (spec.blocks != spec.storage) options.block_storage = spec.blocks;
    options.page_size = kPageSize;
    options.max_context = std::min(files.config.text.max_context, 2048);
    Device& device = *run->device_;
    FOVEA_TRY(run->model_, Model::load(files.checkpoint, std::move(files.config), device, options));
    FOVEA_TRY(PagedKvCache cache, PagedKvCache::create(device, run->model_->config().text,
                                                       is_reference ? DType::kF32 : spec.pages,
                                                       options.max_context / kPageSize, kPageSize));
    run->cache_.emplace(std::move(cache));
    FOVEA_TRY(run->runner_, ModelRunner::create(device, *run->model_, *run->cache_,
                                                {.max_sequences = kLogitRows}));
    FOVEA_TRY(run->stream_, device.make_stream());
    return run;
  }

  Result<Stages> compute(const Question& question) {
    Stages stages;
    FOVEA_TRY(const std::shared_ptr<const EncodedImage> image,
              encode(question.crops, stages.features));
    FOVEA_TRY(stages.embeddings, host(image->embeddings.view()));

    PrefixCache prefixes(cache_->pages(), kPageSize);
    Prompt prompt{.bos = config().prompts.bos,
                  .picture = image->identity,
                  .image_tokens = config().vision.image_tokens(),
                  .tokens = {}};
    for (const TokenId id : question.prompt) prompt.tokens.push_back(Token::text(id));
    Generation generation;
    Sequence& sequence =
        generation.sequence.emplace(cache_->pages(), prefixes, kPageSize, std::move(prompt));
    sequence.set_image(image);
    FOVEA_TRY_STATUS(step(generation, 0));
    FOVEA_TRY(stages.hidden, host(text().x.rows(sequence.length())));
    FOVEA_TRY(stages.logits, logits_of_last_rows(sequence.length()));
    TokenId word = likeliest(stages.logits);
    for (int i = 0; i < question.num_tokens; ++i) {
      if (!question.words.empty()) word = question.words[static_cast<std::size_t>(i)];
      stages.words.push_back(word);
      sequence.append(Token::text(word));
      FOVEA_TRY_STATUS(step(generation, sequence.length() - 1));
      FOVEA_TRY(const Rows hidden, host(text().hidden.rows(1)));
      FOVEA_TRY(const Rows logits, host(text().logits.rows(1)));
      append(hidden, stages.decoded_hidden);
      append(logits, stages.decoded_logits);
      word = likeliest(logits);
    }
    return stages;
  }

  const ModelConfig& config() const { return model_->config(); }

 private:
  Run() = default;
  TextActivations& text() { return runner_->activations().text; }

  static void append(const Rows& rows, Rows& all) {
    all.width = rows.width;
    all.values.insert(all.values.end(), rows.values.begin(), rows.values.end());
  }
  static TokenId likeliest(const Rows& logits) {
    const auto last = logits.row(logits.count() - 1);
    return TokenId{static_cast<std::int32_t>(std::ranges::max_element(last) - last.begin())};
  }

  Result<Rows> host(TensorView view) {
    Rows rows{std::vector<float>(static_cast<std::size_t>(view.num_elements())), view.shape.back()};
    if (view.dtype == DType::kBf16) {
      std::vector<std::uint16_t> bits(rows.values.size());
      stream_->download(view, std::as_writable_bytes(std::span(bits)));
      FOVEA_TRY_STATUS(stream_->synchronize());
      std::ranges::transform(bits, rows.values.begin(), bf16_to_f32);
    } else {
      stream_->download(view, std::as_writable_bytes(std::span(rows.values)));
      FOVEA_TRY_STATUS(stream_->synchronize());
    }
    return rows;
  }

  // As many crops at a time as the device takes.
  Result<std::shared_ptr<const EncodedImage>> encode(const Crops& crops, Rows& features_on_host) {
    const VisionConfig& vision = config().vision;
    const DType dtype = device_->ops().activation_dtype(model_->storage());
    const std::int64_t num_crops = crops.num_crops(), size = vision.crop_size;
    const std::int64_t pass = runner_->max_crops();
    const std::size_t crop_bytes = crops.pixels.size() / static_cast<std::size_t>(num_crops);
    FOVEA_TRY(const Tensor pixels, Tensor::create(*device_, DType::kU8, {pass, size, size, 3}));
    FOVEA_TRY(const Tensor features,
              Tensor::create(*device_, dtype, {num_crops, vision.image_tokens(), vision.enc_dim}));
    EncodedImage image;
    FOVEA_TRY(image.embeddings,
              Tensor::create(*device_, dtype, {vision.image_tokens(), config().text.dim}));
    for (std::int64_t first = 0; first < num_crops; first += pass) {
      const std::int64_t count = std::min(pass, num_crops - first);
      const auto bytes = std::as_bytes(std::span(crops.pixels));
      stream_->upload(bytes.subspan(static_cast<std::size_t>(first) * crop_bytes,
                                    static_cast<std::size_t>(count) * crop_bytes),
                      pixels.rows(count));
      model_->vision().encode_crops(*stream_, pixels.rows(count), runner_->activations(),
                                    features.view().rows(first, count));
    }
    model_->vision().project(*stream_, features.view(), crops.tiling.rows, crops.tiling.cols,
                             runner_->activations(), image.embeddings.view());
    FOVEA_TRY(features_on_host, host(features.view()));
    return std::make_shared<const EncodedImage>(std::move(image));
  }

  // Computes the positions of a sequence from `begin` on.
  Status step(Generation& generation, int begin) {
    Sequence& sequence = *generation.sequence;
    std::optional<Sequence::PageCopy> copy;
    if (!sequence.reserve(sequence.length(), copy)) {
      return error(ErrorCode::kResourceExhausted, "the prompt does not fit");
    }
    StepPlan plan;
    plan.rows.push_back(
        {.generation = &generation, .begin = begin, .end = sequence.length(), .samples = true});
    plan.num_rows = sequence.length() - begin;
    FOVEA_TRY_STATUS(runner_->launch(plan));
    FOVEA_TRY(const StepOutput output, runner_->collect());
    sequence.mark_computed(sequence.length());
    return {};
  }

  Result<Rows> logits_of_last_rows(int length) {
    const TensorView hidden = text().x.rows(length).rows(length - kLogitRows, kLogitRows);
    model_->text().logits(*stream_, hidden, runner_->activations());
    return host(text().logits.rows(kLogitRows));
  }

  // In the order of their lives.
  std::unique_ptr<Device> device_;
  std::unique_ptr<const Model> model_;
  std::optional<PagedKvCache> cache_;
  std::unique_ptr<ModelRunner> runner_;
  std::unique_ptr<Stream> stream_;
};

struct Args {
  std::string model, picture, reference = "cpu:f32";
  std::string question = "How many boats lie in the harbour, and what colours do they have?";
  std::vector<std::string> runs;
  int num_tokens = 8;
};

Result<Question> make_question(const Args& args) {
  FOVEA_TRY(const Opened files, Opened::open(args.model));
  std::ifstream file(args.picture, std::ios::binary);
  if (!file) return invalid_argument("cannot read {}", args.picture);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  FOVEA_TRY(const Image picture, decode_image(std::as_bytes(std::span(bytes)), {}));
  const VisionConfig& vision = files.config.vision;
  ThreadPool pool(1);
  Question question;
  FOVEA_TRY(question.crops, make_crops(picture,
                                       {vision.crop_size, vision.enc_patch_size,
                                        vision.overlap_margin, vision.max_crops},
                                       pool));
  const PromptConfig& prompts = files.config.prompts;
  if (!prompts.query) return invalid_argument("{} answers no questions", args.model);
  const auto put = [&](const std::vector<TokenId>& ids) {
    question.prompt.insert(question.prompt.end(), ids.begin(), ids.end());
  };
  put(prompts.query->prefix);
  FOVEA_TRY(const Tokenizer tokenizer, Tokenizer::load(files.checkpoint.folder()));
  put(tokenizer.encode(args.question));
  put(prompts.query->suffix);
  put(prompts.answer_opener);
  question.num_tokens = args.num_tokens;
  return question;
}

Result<Stages> compute(const Args& args, const RunSpec& spec, const Question& question,
                       bool is_reference) {
  const double began = seconds();
  FOVEA_TRY(const std::unique_ptr<Run> run, Run::load(args.model, spec, is_reference));
  const double loaded = seconds();
  FOVEA_TRY(Stages stages, run->compute(question));
  stages.load_s = loaded - began;
  stages.run_s = seconds() - loaded;
  return stages;
}

// One line for each stage; whether all are within their limits.
bool report(const RunSpec& spec, const Expected& expected, const Stages& actual,
            const Stages& reference) {
  struct Line {
    const char* name;
    Rows Stages::*rows;
    double expected;
    bool has_words;
  };
  const double vision = expected.vision(), text = expected.text();
  const Line lines[] = {{"encoder", &Stages::features, vision, false},
                        {"embeddings", &Stages::embeddings, vision, false},
                        {"hidden, prompt", &Stages::hidden, text, false},
                        {"logits, prompt", &Stages::logits, text, true},
                        {"hidden, decoded", &Stages::decoded_hidden, text, false},
                        {"logits, decoded", &Stages::decoded_logits, text, true}};
  bool is_within = true;
  for (const Line& line : lines) {
    const Difference found = compare(actual.*line.rows, reference.*line.rows);
    const double limit = std::max(2 * line.expected, kLeastLimit);
    const bool fits = found.rms <= limit;
    is_within = is_within && fits;
    fmt::print("| {} | {} | {} | {:.2e} | {:.1e} | {:.2e} | {:.2e} | {:.5f} | {} | {} |\n",
               spec.text, line.name, (reference.*line.rows).count(), found.rms, limit,
               found.largest, found.scale, found.least_cosine,
               line.has_words ? fmt::format("{:.1f} %", 100 * found.equal_argmax) : "-",
               fits ? "yes" : "NO");
  }
  std::fflush(stdout);
  return is_within;
}

Result<bool> run(const Args& args) {
  FOVEA_TRY(const RunSpec reference_spec, RunSpec::parse(args.reference));
  std::vector<RunSpec> specs;
  for (const std::string& text : args.runs) {
    FOVEA_TRY(specs.emplace_back(), RunSpec::parse(text));
  }
  FOVEA_TRY(Question question, make_question(args));
  FOVEA_TRY(const Stages reference, compute(args, reference_spec, question, true));
  question.words = reference.words;
  fmt::print(
      "{}: {} crops, a prompt of {} positions, {} decoded tokens; reference {}: loaded in "
      "{:.1f} s, computed in {:.1f} s\n\n"
      "| run | stage | rows | error, rms | limit | largest | values, rms | least cosine | "
      "equal words | within |\n|---|---|---|---|---|---|---|---|---|---|\n",
      args.model, question.crops.num_crops(), reference.hidden.count(), question.num_tokens,
      args.reference, reference.load_s, reference.run_s);
  FOVEA_TRY(const Opened files, Opened::open(args.model));
  bool is_within = true;
  std::string times;
  for (const RunSpec& spec : specs) {
    FOVEA_TRY(const Stages actual, compute(args, spec, question, false));
    const Expected expected(files.config, spec.storage, spec.blocks, spec.pages);
    is_within = report(spec, expected, actual, reference) && is_within;
    times += fmt::format("{}{} {:.1f} + {:.1f}", times.empty() ? "" : ", ", spec.text,
                         actual.load_s, actual.run_s);
  }
  fmt::print("\nseconds, loading + computing: {}\n", times);
  return is_within;
}

}  // namespace
}  // namespace fovea::agreement

int main(int argc, char** argv) {
  using namespace fovea::agreement;
  CLI::App app("Compares a model on devices and in precisions with a reference.");
  Args args;
  app.add_option("MODEL", args.model, "Folder with weights and tokenizer")->required();
  app.add_option("RUN", args.runs, "DEVICE:DTYPE, such as cuda:bf16")->required();
  app.add_option("--picture", args.picture, "A picture file")->required();
  app.add_option("--reference", args.reference, "What the runs are compared with");
  app.add_option("--question", args.question, "What is asked");
  app.add_option("--tokens", args.num_tokens, "Decoded behind the prompt")
      ->check(CLI::Range(1, 256));
  CLI11_PARSE(app, argc, argv);
  const fovea::Result<bool> is_within = run(args);
  if (!is_within.ok()) {
    std::cerr << "device_agreement: " << is_within.error().message << '\n';
    return 2;
  }
  return *is_within ? 0 : 1;
}
