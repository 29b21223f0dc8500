#include "pull_command.h"

#include <boost/json.hpp>
#include <fmt/format.h>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "fovea/engine.h"

#include "files.h"
#include "hub/http_client.h"
#include "hub/human.h"
#include "hub/pull.h"
#include "models_folder.h"
#include "pull_progress.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr std::size_t kMaxTokenBytes = 1024;

// A token goes into a header: nothing may be in it that could end one.
Result<std::string> checked_token(std::string text, const std::string& from) {
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  const std::size_t end = text.find_last_not_of(" \t\r\n");
  text = begin == std::string::npos ? std::string() : text.substr(begin, end - begin + 1);
  for (const char c : text) {
    if (c <= ' ' || c > '~') {
      return Error{ErrorCode::kInvalidArgument,
                   from + " holds no access token: one word is wanted"};
    }
  }
  if (text.empty()) return Error{ErrorCode::kInvalidArgument, from + " holds no access token"};
  return text;
}

// The token of the command line's file, or of the environment. $HF_TOKEN was made for one hub, and
// no mirror gets to see it.
Result<std::string> find_token(const PullArgs& args, const Environment& environment) {
  if (args.token_file) {
    const auto bytes = read_file(*args.token_file, kMaxTokenBytes);
    if (!bytes.ok()) return bytes.error();
    return checked_token(std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size()),
                         *args.token_file);
  }
  for (const char* name : {"FOVEA_HUB_TOKEN", "HF_TOKEN"}) {
    if (args.endpoint && std::string_view(name) == "HF_TOKEN") continue;
    if (auto token = variable(environment, name)) return checked_token(std::move(*token), name);
  }
  return std::string();
}

Status check_loads(const fs::path& folder) {
  const Result<ModelSummary> summary = inspect_model(folder);
  if (summary.ok()) return {};
  return Error{summary.error().code,
               "all files are here, but this version cannot load them: " + summary.error().message +
                   "; another tokenizer can be named with --tokenizer ORG/NAME"};
}

Result<hub::PullOptions> make_options(const PullArgs& args, const Terminal& terminal) {
  hub::PullOptions options;
  Result<hub::ModelReference> model = hub::parse_reference(args.model);
  if (!model.ok()) return std::move(model).error();
  options.model = std::move(model).value();
  if (args.tokenizer) {
    if (!hub::is_repository_name(*args.tokenizer)) {
      return Error{ErrorCode::kInvalidArgument,
                   "--tokenizer: '" + *args.tokenizer + "' is not of the form ORG/NAME"};
    }
    options.tokenizer_repository = *args.tokenizer;
  }
  if (args.endpoint) options.endpoint = *args.endpoint;
  Result<std::string> token = find_token(args, terminal.environment);
  if (!token.ok()) return std::move(token).error();
  options.token = std::move(token).value();
  options.retries.retries = args.retries;
  options.retries.first_wait = std::chrono::seconds(args.retry_wait_s);
  options.retries.wait = [](std::chrono::milliseconds time) { std::this_thread::sleep_for(time); };
  options.check = &check_loads;
  return options;
}

Result<std::unique_ptr<hub::HttpClient>> make_client(const PullArgs& args) {
  hub::HttpOptions options;
  if (args.ca_file) {
    // The library would say so only while it connects, and again with each retry.
    const auto readable = read_file(*args.ca_file, std::size_t{16} << 20);
    if (!readable.ok()) return readable.error();
    options.ca_file = *args.ca_file;
  }
  options.stall_timeout = std::chrono::seconds(args.stall_timeout_s);
  options.user_agent = fmt::format("fovea/{}", version());
  return hub::HttpClient::create(std::move(options));
}

std::string licence_note(const hub::KnownModel* known, const std::string& card) {
  if (known != nullptr) return std::string(known->licence);
  return card.empty() ? "not said: look at the model's page" : card;
}

void print_result(const PullArgs& args, const hub::PullOptions& options,
                  const hub::PullResult& result, std::ostream& out) {
  const hub::Manifest& manifest = result.manifest;
  const std::string licence = licence_note(options.model.known, manifest.licence);
  if (args.json) {
    out << json::serialize(json::object{{"name", options.model.name()},
                                        {"repository", manifest.repository},
                                        {"revision", manifest.revision},
                                        {"commit", manifest.commit},
                                        {"path", result.folder.string()},
                                        {"bytes", manifest.total_bytes()},
                                        {"received_bytes", result.received},
                                        {"licence", licence}})
        << '\n';
    return;
  }
  out << fmt::format("{} {} in {} ({})\n", options.model.name(),
                     result.was_there ? "was already" : "is", result.folder.string(),
                     hub::human_bytes(manifest.total_bytes()));
  out << fmt::format("Licence: {}\n", licence);
  out << fmt::format("Try: fovea caption photo.jpg --model {}\n",
                     args.models_dir ? result.folder.string() : options.model.name());
}

}  // namespace

int run_pull(const PullArgs& args, Terminal& terminal) {
  const auto fail = [&](const Error& error) { return report_failure(error, args.json, terminal); };
  const Result<hub::PullOptions> options = make_options(args, terminal);
  if (!options.ok()) return fail(options.error());
  const Result<fs::path> models = models_folder(args.models_dir, terminal.environment);
  if (!models.ok()) return fail(models.error());
  const Result<std::unique_ptr<hub::HttpClient>> client = make_client(args);
  if (!client.ok()) return fail(client.error());

  Result<hub::PullResult> result = Error{};
  {
    PullProgress progress(terminal.err, terminal.err_is_terminal);
    const hub::PullEvents events{.on_progress = [&](const auto& state) { progress.update(state); },
                                 .on_line = [&](const std::string& line) { progress.line(line); }};
    result = hub::pull(**client, hub::ModelStore(*models), *options, events);
  }
  if (!result.ok()) return fail(result.error());
  print_result(args, *options, *result, terminal.out);
  return finish(terminal);
}

}  // namespace fovea::cli
