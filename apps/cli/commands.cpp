#include "commands.h"

#include <optional>
#include <utility>

#include "batch_command.h"
#include "bench_serve.h"
#include "model_path.h"
#include "progress.h"
#include "pull_command.h"
#include "serve_command.h"
#include "text_output.h"
#include "wire/response_json.h"

namespace fovea::cli {

int run(std::span<const std::string> args, Terminal terminal) {
  const ParsedArgs parsed = parse_args(args);
  if (const auto* skill = std::get_if<SkillArgs>(&parsed)) return run_skill(*skill, terminal);
  if (const auto* info = std::get_if<InfoArgs>(&parsed)) return run_info(*info, terminal);
  if (const auto* bench = std::get_if<BenchServeArgs>(&parsed)) {
    return run_bench_serve(*bench, terminal);
  }
  if (const auto* batch = std::get_if<BatchArgs>(&parsed)) return run_batch(*batch, terminal);
  if (const auto* pull = std::get_if<PullArgs>(&parsed)) return run_pull(*pull, terminal);
  if (const auto* models = std::get_if<ModelsArgs>(&parsed)) return run_models(*models, terminal);
  if (const auto* serve = std::get_if<std::shared_ptr<ServeArgs>>(&parsed)) {
    return run_serve(**serve, terminal);
  }
  const auto& text = std::get<PrintAndExit>(parsed);
  terminal.out << text.out;
  terminal.err << text.err;
  const int written = finish(terminal);
  return text.exit_code == kExitOk ? written : text.exit_code;
}

Result<std::filesystem::path> find_model(const ModelArgs& args, const Terminal& terminal) {
  return find_model(args.model, {.executable = terminal.executable,
                                 .models_dir = args.models_dir,
                                 .environment = terminal.environment});
}

Result<std::unique_ptr<Engine>> load_engine(const ModelArgs& args, Terminal& terminal) {
  Result<std::filesystem::path> model = find_model(args, terminal);
  if (!model.ok()) return std::move(model).error();
  EngineOptions options = args.options;
  options.model = std::move(model).value();

  std::optional<LoadProgress> progress;
  if (terminal.err_is_terminal) {
    progress.emplace(terminal.err);
    options.on_load_progress = [&progress](double fraction) { progress->update(fraction); };
  }
  return Engine::create(options);
}

int run_info(const InfoArgs& args, Terminal& terminal) {
  std::unique_ptr<Engine> engine;
  if (args.model.model) {
    Result<std::unique_ptr<Engine>> loaded = load_engine(args.model, terminal);
    if (!loaded.ok()) return report_failure(loaded.error(), args.json, terminal);
    engine = std::move(loaded).value();
  }
  const std::vector<DeviceReport> devices = list_devices();
  const ModelInfo* model = engine ? &engine->info() : nullptr;
  terminal.out << (args.json ? wire::info_json(devices, model) + "\n" : info_text(devices, model));
  return finish(terminal);
}

int report_failure(const Error& error, bool json, Terminal& terminal) {
  terminal.err << "fovea: " << error.message << '\n' << std::flush;
  if (json) terminal.out << wire::error_json(error) << '\n' << std::flush;
  return kExitFailed;
}

int finish(Terminal& terminal) {
  terminal.out.flush();
  if (terminal.out) return kExitOk;
  terminal.err << "fovea: cannot write to standard output\n" << std::flush;
  return kExitFailed;
}

}  // namespace fovea::cli
