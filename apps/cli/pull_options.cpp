#include "pull_options.h"

#include "options.h"

namespace fovea::cli {
namespace {

// An option whose text is taken as it is, but not when it is empty.
CLI::Option* add_text(CLI::App& app, const std::string& name, const std::string& placeholder,
                      const std::string& help, std::optional<std::string>& target) {
  return add_value(app, name, placeholder, help, [&target](const std::string& text) {
    if (text.empty()) return Status(usage("a text is missing"));
    target = text;
    return Status();
  });
}

}  // namespace

void add_models_dir_option(CLI::App& app, std::optional<std::string>& models_dir) {
  add_text(app, "--models-dir", "DIR",
           "Folder of pulled models; $FOVEA_MODELS or the user's data folder when not given",
           models_dir);
}

CLI::App& add_pull(CLI::App& app, PullArgs& args) {
  CLI::App& sub = *app.add_subcommand("pull", "Download a model from a hub");
  sub.add_option("MODEL", args.model, "moondream2, moondream3, or ORG/NAME; with @REVISION behind")
      ->required();
  add_models_dir_option(sub, args.models_dir);
  add_text(sub, "--tokenizer", "ORG/NAME", "Take the tokenizer from this repository",
           args.tokenizer);
  sub.add_flag("--json", args.json, "Print one JSON object instead of text");
  add_text(sub, "--endpoint", "URL", "A mirror of the hub", args.endpoint)->group("Network");
  add_text(sub, "--token-file", "FILE",
           "File with an access token, for gated models; $FOVEA_HUB_TOKEN when not given",
           args.token_file)
      ->group("Network");
  add_text(sub, "--ca-file", "FILE", "Trust these certificates (PEM) instead of the system's",
           args.ca_file)
      ->group("Network");
  add_integer(sub, "--retries", 0, "Tries after a failure, without progress; 5 when not given",
              [&args](int value) { args.retries = value; })
      ->group("Network");
  add_integer(sub, "--retry-wait", 0, "Seconds before the first of them, then doubling; 1",
              [&args](int value) { args.retry_wait_s = value; })
      ->group("Network");
  add_integer(sub, "--stall-timeout", 1, "Seconds of silence that count as a failure; 30",
              [&args](int value) { args.stall_timeout_s = value; })
      ->group("Network");
  sub.footer(
      "An interrupted download goes on where it stopped. The files are checked against the hub's\n"
      "sums before the model appears under its name.\n\n"
      "Examples:\n"
      "  fovea pull moondream2\n"
      "  fovea caption photo.jpg --model moondream2");
  return sub;
}

CLI::App& add_models(CLI::App& app, ModelsArgs& args) {
  CLI::App& sub = *app.add_subcommand("models", "List the models that are here, or remove one");
  sub.require_subcommand(0, 1);
  sub.add_flag("--json", args.json, "Print one JSON object instead of text");
  add_models_dir_option(sub, args.models_dir);
  CLI::App& remove = *sub.add_subcommand("rm", "Remove a pulled model");
  remove
      .add_option_function<std::string>(
          "MODEL", [&args](const std::string& name) { args.remove = name; },
          "As fovea models names it")
      ->required();
  remove.add_flag("--json", args.json, "Print one JSON object instead of text");
  add_models_dir_option(remove, args.models_dir);
  sub.footer(
      "Examples:\n"
      "  fovea models\n"
      "  fovea models rm moondream2");
  return sub;
}

}  // namespace fovea::cli
