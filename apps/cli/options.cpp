#include "options.h"

#include <cmath>
#include <fmt/format.h>
#include <limits>

#include "pull_options.h"
#include "values.h"

namespace fovea::cli {

Error usage(std::string message) { return Error{ErrorCode::kInvalidArgument, std::move(message)}; }

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
                         const std::string& help, std::function<void(int)> store) {
  return add_value(
      app, name, "N", help, [minimum, store = std::move(store)](const std::string& text) {
        const Result<std::uint64_t> value = parse_count(text);
        if (!value.ok() || *value < static_cast<std::uint64_t>(minimum) ||
            *value > std::numeric_limits<int>::max()) {
          return Status(usage(fmt::format("'{}' is not a whole number from {} up", text, minimum)));
        }
        store(static_cast<int>(*value));
        return Status();
      });
}

CLI::Option* add_real(CLI::App& app, const std::string& name, const std::string& wanted,
                      const std::string& help, bool (*fits)(double), std::optional<float>& target) {
  return add_value(app, name, "X", help, [wanted, fits, &target](const std::string& text) {
    const Result<double> value = parse_number(text);
    if (!value.ok() || !fits(*value)) {
      return Status(usage(fmt::format("'{}' is not a number {}", text, wanted)));
    }
    target = static_cast<float>(*value);
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
  app.add_option("--device", options.device, "auto, cpu (fovea info lists what there is)")
      ->option_text("NAME")
      ->group("Model and machine");
  add_value(app, "--dtype", "TYPE", "auto, f32 or bf16; auto is what the checkpoint holds",
            one_of<Precision>(
                {{"auto", Precision::kAuto}, {"f32", Precision::kF32}, {"bf16", Precision::kBf16}},
                options.precision))
      ->group("Model and machine");
  add_integer(app, "--threads", 1, "CPU threads; every usable processor when not given",
              [&options](int value) { options.num_threads = value; });
  add_integer(app, "--max-context", 1, "Positions of picture, prompt and answer together",
              [&options](int value) { options.max_context = value; });
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
  for (const char* name : {"--models-dir", "--threads", "--max-context", "--adapter", "--compat"}) {
    app.get_option(name)->group("Model and machine");
  }
}

void add_sampling_options(CLI::App& app, SamplingParams& sampling) {
  add_real(
      app, "--temperature", "from 0 up", "0 always takes the likeliest token",
      [](double x) { return x >= 0 && x <= std::numeric_limits<float>::max(); },
      sampling.temperature);
  add_real(
      app, "--top-p", "above 0, at most 1", "Only the likeliest tokens that sum up to this",
      [](double x) { return static_cast<float>(x) > 0 && x <= 1; }, sampling.top_p);
  add_integer(app, "--top-k", 0, "Only the N likeliest tokens; 0 keeps all",
              [&sampling](int value) { sampling.top_k = value; });
  add_real(
      app, "--min-p", "from 0 to below 1", "Only tokens this likely relative to the likeliest",
      [](double x) { return x >= 0 && static_cast<float>(x) < 1; }, sampling.min_p);
  add_value(app, "--seed", "N", "Equal seeds give equal answers; 0 when not given",
            [&sampling](const std::string& text) {
              const Result<std::uint64_t> value = parse_count(text);
              if (!value.ok()) return Status(value.error());
              sampling.seed = *value;
              return Status();
            });
  add_integer(app, "--max-tokens", 1, "Tokens to generate at most",
              [&sampling](int value) { sampling.max_tokens = value; });
  for (const char* name :
       {"--temperature", "--top-p", "--top-k", "--min-p", "--seed", "--max-tokens"}) {
    app.get_option(name)->group("Choosing words");
  }
}

void add_stop_option(CLI::App& app, SamplingParams& sampling) {
  add_repeatable(app, "--stop", "TEXT", "End the answer before this text",
                 [&sampling](const std::string& text) {
                   if (text.empty()) return Status(usage("a stop text is empty"));
                   sampling.stop.push_back(text);
                   return Status();
                 })
      ->group("Choosing words");
}

}  // namespace fovea::cli
