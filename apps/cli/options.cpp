#include "options.h"

#include <cmath>
#include <fmt/format.h>
#include <limits>

#include "pull_options.h"

namespace fovea::cli {
namespace {

constexpr int kMaxThreads = 1024;  // as Engine::create() has it

}  // namespace

CLI::Option* add_value(CLI::App& app, const std::string& names, const std::string& placeholder,
                       const std::string& help, Accept accept) {
  CLI::callback_t keep = [](const CLI::results_t&) { return true; };
  return app.add_option(names, std::move(keep), help)
      ->option_text(placeholder)
      ->check([accept = std::move(accept)](const std::string& text) -> std::string {
        const Status status = accept(text);
        return status.ok() ? std::string() : status.error().message;
      });
}

CLI::Option* add_repeatable(CLI::App& app, const std::string& names, const std::string& placeholder,
                            const std::string& help, Accept accept) {
  return add_value(app, names, placeholder, help + " (repeatable)", std::move(accept))->take_all();
}

CLI::Option* add_integer(CLI::App& app, const std::string& name, int minimum,
                         const std::string& help, std::function<void(int)> store, int maximum) {
  return add_value(
      app, name, "N", help, [minimum, maximum, store = std::move(store)](const std::string& text) {
        const Result<std::uint64_t> value = parse_count(text);
        if (!value.ok() || *value < static_cast<std::uint64_t>(minimum) ||
            *value > static_cast<std::uint64_t>(maximum)) {
          if (is_all_digits(text) && !(value.ok() && *value < static_cast<std::uint64_t>(minimum)))
            return Status(usage(fmt::format("'{}' is more than {}", text, maximum)));
          return Status(usage(fmt::format("'{}' is not a whole number from {} up", text, minimum)));
        }
        store(static_cast<int>(*value));
        return Status();
      });
}

CLI::Option* add_size(CLI::App& app, const std::string& name, const std::string& help,
                      std::function<void(std::size_t)> store) {
  return add_value(app, name, "SIZE", help, [store = std::move(store)](const std::string& text) {
    const Result<std::size_t> size = parse_size(text);
    if (!size.ok()) return Status(size.error());
    store(*size);
    return Status();
  });
}

CLI::Option* add_real(CLI::App& app, const std::string& name, const std::string& wanted,
                      const std::string& help, bool (*fits)(double),
                      std::function<void(float)> store) {
  return add_value(app, name, "X", help,
                   [wanted, fits, store = std::move(store)](const std::string& text) {
                     const Result<double> value = parse_number(text);
                     if (!value.ok() || !fits(*value)) {
                       return Status(usage(fmt::format("'{}' is not a number {}", text, wanted)));
                     }
                     store(static_cast<float>(*value));
                     return Status();
                   });
}

void add_model_options(CLI::App& app, ModelArgs& model) {
  EngineOptions& options = model.options;
  add_value(app, "-m,--model", "MODEL",
            "A pulled model (fovea models lists them), a folder with weights and tokenizer, or the "
            "weights file",
            [&model](const std::string& text) {
              if (text.empty()) return Status(usage("the folder's name is empty"));
              model.model = text;
              return Status();
            })
      ->group("Model and machine");
  add_models_dir_option(app, model.models_dir);
  app.add_option("--device", options.device,
                 "auto, cpu, cuda, cuda:N (fovea info lists what there is)")
      ->option_text("NAME")
      ->group("Model and machine");
  add_value(app, "--dtype", "TYPE",
            "auto, f32, bf16, fp8 or int4; auto is what the checkpoint holds",
            one_of<Precision>({{"auto", Precision::kAuto},
                               {"f32", Precision::kF32},
                               {"bf16", Precision::kBf16},
                               {"fp8", Precision::kFp8},
                               {"int4", Precision::kInt4}},
                              options.precision))
      ->group("Model and machine");
  add_value(app, "--kv-dtype", "TYPE",
            "auto, f32, bf16, int8 or fp8: of keys and values; 8 bits halve bf16's memory",
            one_of<KvPrecision>({{"auto", KvPrecision::kAuto},
                                 {"f32", KvPrecision::kF32},
                                 {"bf16", KvPrecision::kBf16},
                                 {"int8", KvPrecision::kInt8},
                                 {"fp8", KvPrecision::kFp8}},
                                options.kv_precision));
  add_integer(
      app, "--threads", 1, "CPU threads; every usable processor when not given",
      [&options](int value) { options.num_threads = value; }, kMaxThreads);
  add_integer(app, "--max-context", 1, "Positions of picture, prompt and answer together",
              [&options](int value) { options.max_context = value; });
  app.add_flag(
      "--batch-invariant", options.batch_invariant,
      "Answers do not depend on what else is answered: always so on a CPU, slower on a GPU");
  add_repeatable(app, "--adapter", "NAME=PATH", "A LoRA adapter: safetensors",
                 [&options](const std::string& text) {
                   const std::size_t equals = text.find('=');
                   if (equals == 0 || equals == std::string::npos || equals + 1 == text.size()) {
                     return Status(usage("NAME=PATH is wanted"));
                   }
                   options.adapters.emplace_back(text.substr(0, equals), text.substr(equals + 1));
                   return Status();
                 });
  add_repeatable(app, "--compat", "KEY=VALUE",
                 "Where published sources disagree, the other reading; see docs/compatibility.md",
                 [&options](const std::string& text) {
                   return apply_compatibility(text, options.compatibility);
                 });
  add_value(app, "--image-cache", "DIR",
            "Keep encoded pictures in this folder: a known picture is not encoded again",
            [&options](const std::string& text) {
              if (text.empty()) return Status(usage("the folder's name is empty"));
              options.image_cache_folder = text;
              return Status();
            });
  add_size(app, "--image-cache-disk", "Size of that folder at most; 4G when not given",
           [&options](std::size_t size) { options.image_cache_folder_bytes = size; });
  for (const char* name :
       {"--models-dir", "--kv-dtype", "--threads", "--max-context", "--batch-invariant",
        "--adapter", "--compat", "--image-cache", "--image-cache-disk"}) {
    app.get_option(name)->group("Model and machine");
  }
}

void add_sampling_options(CLI::App& app, SamplingParams& sampling) {
  add_real(
      app, "--temperature", "from 0 up", "0 always takes the likeliest token",
      [](double x) { return x >= 0 && x <= std::numeric_limits<float>::max(); },
      [&sampling](float x) { sampling.temperature = x; });
  add_real(
      app, "--top-p", "above 0, at most 1", "Only the likeliest tokens that sum up to this",
      [](double x) { return static_cast<float>(x) > 0 && x <= 1; },
      [&sampling](float x) { sampling.top_p = x; });
  add_integer(app, "--top-k", 0, "Only the N likeliest tokens; 0 keeps all",
              [&sampling](int value) { sampling.top_k = value; });
  add_real(
      app, "--min-p", "from 0 to below 1", "Only tokens this likely relative to the likeliest",
      [](double x) { return x >= 0 && static_cast<float>(x) < 1; },
      [&sampling](float x) { sampling.min_p = x; });
  add_value(app, "--seed", "N", "Equal seeds give equal answers; 0 when not given",
            [&sampling](const std::string& text) {
              const Result<std::uint64_t> value = parse_count(text);
              if (!value.ok()) return Status(value.error());
              sampling.seed = *value;
              return Status();
            });
  add_integer(app, "--max-tokens", 1, "Tokens to generate at most; detect counts objects instead",
              [&sampling](int value) { sampling.max_tokens = value; });
  for (const char* name :
       {"--temperature", "--top-p", "--top-k", "--min-p", "--seed", "--max-tokens"}) {
    app.get_option(name)->group("Choosing words");
  }
}

void add_word_options(CLI::App& app, SamplingParams& sampling) {
  add_repeatable(app, "--stop", "TEXT", "End the answer before this text",
                 [&sampling](const std::string& text) {
                   if (text.empty()) return Status(usage("a stop text is empty"));
                   sampling.stop.push_back(text);
                   return Status();
                 });
  add_real(
      app, "--repetition-penalty", "above 0",
      "Above 1: words that prompt or answer hold get less likely",
      [](double x) { return static_cast<float>(x) > 0 && x <= std::numeric_limits<float>::max(); },
      [&sampling](float x) { sampling.repetition_penalty = x; });
  const auto penalty = [](double x) { return std::abs(x) <= 2; };
  add_real(app, "--presence-penalty", "from -2 to 2", "Taken off the logits of words already said",
           penalty, [&sampling](float x) { sampling.presence_penalty = x; });
  add_real(app, "--frequency-penalty", "from -2 to 2", "The same, once for each time it was said",
           penalty, [&sampling](float x) { sampling.frequency_penalty = x; });
  add_repeatable(app, "--logit-bias", "ID=VALUE",
                 "Added to the logit of a token; -100 bans it, 100 all but forces it",
                 [&sampling](const std::string& text) {
                   const Result<std::pair<std::int32_t, float>> bias = parse_logit_bias(text);
                   if (!bias.ok()) return Status(bias.error());
                   sampling.logit_bias.push_back(*bias);
                   return Status();
                 });
  add_integer(app, "--logprobs", 0, "With --json: log-probs, and those of N rivals of each token",
              [&sampling](int value) { sampling.top_logprobs = value; });
  for (const char* name : {"--stop", "--repetition-penalty", "--presence-penalty",
                           "--frequency-penalty", "--logit-bias", "--logprobs"}) {
    app.get_option(name)->group("Choosing words");
  }
}

Status check_sampling_counts(const SamplingParams& sampling) {
  if (sampling.stop.size() > 16) return usage("--stop can be given 16 times at most");
  if (sampling.logit_bias.size() > 1024) {
    return usage("--logit-bias can be given 1024 times at most");
  }
  if (sampling.top_logprobs.value_or(0) > 20) return usage("--logprobs goes up to 20");
  return {};
}

void add_engine_options(CLI::App& app, EngineOptions& options) {
  add_integer(app, "--max-sequences", 1, "Answers generated at once; 16 when not given",
              [&options](int value) { options.max_sequences = value; })
      ->check(CLI::Range(1, 1024));
  add_integer(app, "--max-queue", 1,
              "Requests inside at once, more are refused; 1024 when not given",
              [&options](int value) { options.max_queue = value; });
  add_size(app, "--kv-cache-size", "Memory for keys and values, 2G say; a share of what is free",
           [&options](std::size_t size) { options.kv_cache_bytes = size; });
  add_size(app, "--image-cache-size",
           "Memory for encoded pictures; 256M when not given, more on a GPU",
           [&options](std::size_t size) { options.image_cache_bytes = size; });
  add_integer(app, "--max-stall", 0,
              "Milliseconds that new pictures may hold up running answers; 250 when not given",
              [&options](int value) { options.max_stall_ms = value; });
  for (const char* name :
       {"--max-sequences", "--max-queue", "--kv-cache-size", "--image-cache-size", "--max-stall"}) {
    app.get_option(name)->group("Engine");
  }
}

}  // namespace fovea::cli
