#include "serve_command.h"

#include <cmath>
#include <mutex>
#include <string>
#include <sys/resource.h>
#include <utility>

#include "model_path.h"
#include "options.h"
#include "server/server.h"
#include "values.h"

namespace fovea::cli {
namespace {

constexpr int kMaxPort = 65535;

// A time or size option whose default stands in the help.
void add_seconds(CLI::App& app, const std::string& name, const std::string& help,
                 std::function<void(double)> store) {
  add_value(app, name, "SECONDS", help, [store = std::move(store)](const std::string& text) {
    const Result<double> value = parse_number(text);
    if (!value.ok() || *value <= 0) {
      return Status(usage("'" + text + "' is not a number of seconds above 0"));
    }
    store(*value);
    return Status();
  });
}

Accept append_to(std::vector<std::string>& list) {
  return [&list](const std::string& text) {
    if (text.empty()) return Status(usage("the value is empty"));
    list.push_back(text);
    return Status();
  };
}

void add_address_options(CLI::App& sub, ServeArgs& args) {
  server::ServerOptions& server = args.server;
  sub.add_option("--host", server.host, "Address to listen on; 127.0.0.1 when not given")
      ->option_text("ADDRESS");
  add_integer(sub, "--port", 0, "Port to listen on; 2020 when not given, 0 takes any",
              [&server](int value) { server.port = static_cast<std::uint16_t>(value); })
      ->check(CLI::Range(0, kMaxPort));
  sub.add_option("--api-key-file", args.api_key_file, "Keys that may ask, one a line")
      ->option_text("FILE");
  sub.add_flag("--insecure", server.insecure, "Let everybody ask who reaches --host");
  sub.add_option("--tls-cert", server.tls_certificate, "Speak HTTPS: the certificate chain, PEM")
      ->option_text("FILE");
  sub.add_option("--tls-key", server.tls_key, "The certificate's key, PEM")->option_text("FILE");
  add_repeatable(sub, "--cors", "ORIGIN", "A web origin whose pages may ask; * is all of them",
                 append_to(server.cors_origins));
  add_repeatable(sub, "--allow-url-host", "HOST",
                 "Fetch pictures from URLs of this host; none when not given",
                 append_to(server.url_hosts));
  sub.add_flag("--allow-private-urls", server.allow_private_urls,
               "Of those hosts also the ones in private networks: cameras, say");
}

void add_load_options(CLI::App& sub, ServeArgs& args) {
  EngineOptions& engine = args.model.options;
  server::ServerOptions& server = args.server;
  add_engine_options(sub, engine);
  add_integer(sub, "--max-connections", 1, "Open connections; 4096 when not given",
              [&server](int value) { server.max_connections = value; });
  add_integer(
      sub, "--max-body-mb", 1, "Largest request in MiB, then 413; 48 when not given",
      [&server](int value) { server.max_body_bytes = static_cast<std::size_t>(value) << 20; });
  add_seconds(sub, "--head-timeout", "For a request's head, and a TLS handshake; 15 when not given",
              [&server](double value) { server.header_timeout_s = value; });
  add_seconds(sub, "--body-timeout", "Between two pieces of a body; 30 when not given",
              [&server](double value) { server.body_timeout_s = value; });
  add_seconds(sub, "--idle-timeout", "Between two requests of one connection; 75 when not given",
              [&server](double value) { server.idle_timeout_s = value; });
  add_seconds(sub, "--write-timeout",
              "For a client to take a piece of its answer; 30 when not given",
              [&server](double value) { server.write_timeout_s = value; });
  add_seconds(sub, "--timeout", "Answers that take longer end with 504; no limit when not given",
              [&server](double value) { server.deadline_s = value; });
  add_seconds(sub, "--drain-timeout", "When stopping, wait so long for answers; 30 when not given",
              [&server](double value) { server.drain_timeout_s = value; });
}

void add_naming_options(CLI::App& sub, ServeArgs& args) {
  server::ServerOptions& server = args.server;
  sub.add_option("--model-name", server.model_name,
                 "What /v1/models calls the model; the name it was loaded by when not given")
      ->option_text("NAME");
  add_value(sub, "--metrics-prefix", "PREFIX",
            "Before the names in /metrics; fovea_ when not given, vllm: suits its boards",
            [&server](const std::string& text) {
              for (const char c : text) {
                const bool fits =
                    (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':';
                if (!fits) return Status(usage("letters, '_' and ':' are wanted"));
              }
              server.metrics_prefix = text;
              return Status();
            });
  add_value(sub, "--log", "MODE", "none, or json: a line about each request on standard error",
            one_of<LogMode>({{"none", LogMode::kNone}, {"json", LogMode::kJson}}, args.log));
  sub.add_flag_callback(
      "--log-content", [&args] { args.log = LogMode::kJsonWithContent; },
      "Log questions and error messages too");
}

// Every connection is a descriptor, and the usual limit is for programs of another time.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

CLI::App& add_serve(CLI::App& app, ServeArgs& args) {
  CLI::App& sub = *app.add_subcommand("serve", "Answer over HTTP: Moondream and OpenAI clients");
  add_model_options(sub, args.model);
  add_address_options(sub, args);
  add_load_options(sub, args);
  add_naming_options(sub, args);
  sub.footer(
      "Examples:\n"
      "  fovea serve --model ~/moondream2\n"
      "  fovea serve --host 0.0.0.0 --api-key-file keys.txt\n"
      "  curl http://localhost:2020/health");
  return sub;
}

int run_serve(const ServeArgs& args, Terminal& terminal) {
  server::ServerOptions options = args.server;
  if (args.api_key_file) {
    Result<std::vector<std::string>> keys = server::read_api_keys(*args.api_key_file);
    if (!keys.ok()) return report_failure(keys.error(), false, terminal);
    options.api_keys = std::move(keys).value();
  }
  std::mutex mutex;  // lines come from several threads
  const auto log = [&mutex, &terminal](std::string_view line) {
    const std::lock_guard lock(mutex);
    terminal.err << line << '\n' << std::flush;
  };
  ModelArgs model = args.model;
  options.max_queue = model.options.max_queue;
  if (args.log != LogMode::kNone) {
    options.log = log;
    model.options.request_log = log;
    options.log_content = model.options.log_content = args.log == LogMode::kJsonWithContent;
  }
  if (options.model_name.empty()) {
    const Result<std::filesystem::path> path = find_model(model, terminal);
    if (!path.ok()) return report_failure(path.error(), false, terminal);
    options.model_name = model_label(model.model, *path);
  }
  raise_descriptor_limit();
  // The engine's requests end before the server's connections do.
  Result<std::unique_ptr<server::Server>> server = server::Server::create(options);
  if (!server.ok()) return report_failure(server.error(), false, terminal);
  Result<std::unique_ptr<Engine>> engine = load_engine(model, terminal);
  if (!engine.ok()) return report_failure(engine.error(), false, terminal);
  (*server)->set_engine(**engine);
  terminal.out << "Listening on " << (*server)->url() << '\n' << std::flush;
  (*server)->serve();
  engine.value().reset();
  return finish(terminal);
}

}  // namespace fovea::cli
