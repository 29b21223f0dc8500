#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fovea/engine.h"
#include "fovea/picture.h"

#include "annotate.h"
#include "commands.h"
#include "files.h"
#include "text_output.h"
#include "wire/response_json.h"

namespace fovea::cli {
namespace {

// caption, query, detect and point differ in their arguments and in what they print; the way from
// the picture to the answer is the same.
class SkillCommand {
 public:
  SkillCommand(const SkillArgs& args, Terminal& terminal) : args_(args), terminal_(terminal) {}

  int run() {
    // What is cheap to find wrong is found before a model is loaded.
    if (args_.annotate) {
      if (Status status = check_writable(*args_.annotate); !status.ok())
        return fail(status.error());
    }
    Result<std::vector<Request>> requests = make_requests();
    if (!requests.ok()) return fail(requests.error());
    Result<std::unique_ptr<Engine>> engine = load_engine(args_.model, terminal_);
    if (!engine.ok()) return fail(engine.error());
    if (requests->size() > 1) return answer_all(**engine, *requests);

    const Request& request = requests->front();
    const Result<Response> response = (*engine)->run(request, stream_callback());
    if (!response.ok()) {
      // A started line of streamed text is ended before the message.
      if (printed_text_ && !args_.json) terminal_.out << '\n' << std::flush;
      return fail(response.error());
    }
    print(request, *response);
    const int written = finish(terminal_);
    if (written != kExitOk) return written;
    return draw(request, std::array{Finding{request.skill, *response}});
  }

 private:
  // One for each answer; they share the picture.
  Result<std::vector<Request>> make_requests() {
    Request request;
    request.apply_exif = args_.apply_exif;
    request.sampling = args_.sampling;
    const auto& adapters = args_.model.options.adapters;
    if (!adapters.empty()) request.adapter = adapters.back().first;
    std::optional<std::string> schema;
    if (args_.json_schema) {
      Result<std::string> read = read_schema(*args_.json_schema);
      if (!read.ok()) return std::move(read).error();
      schema = std::move(read).value();
    }
    if (args_.picture) {
      const std::size_t max_bytes = args_.model.options.picture_limits.max_bytes;
      Result<std::vector<std::byte>> bytes = args_.picture->path == "-"
                                                 ? read_stream(terminal_.in, max_bytes)
                                                 : read_file(args_.picture->path, max_bytes);
      if (!bytes.ok()) return std::move(bytes).error();
      request.picture = std::move(bytes).value();
    }
    std::vector<Request> requests;
    for (const SkillRequest& skill : args_.skills) {
      request.skill = skill;
      if (auto* query = std::get_if<QueryRequest>(&request.skill)) query->json_schema = schema;
      for (Request& each : repeat(request, args_.num_answers)) requests.push_back(std::move(each));
    }
    return requests;
  }

  // Several questions, or several answers: side by side in the engine, printed in their order.
  int answer_all(Engine& engine, const std::vector<Request>& requests) {
    const std::vector<Result<Response>> responses = engine.run_all(requests);
    std::vector<Finding> findings;
    bool failed = false;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      wire::AnswerLabel label{static_cast<int>(i) / args_.num_answers};
      if (args_.num_answers > 1) label.seed = requests[i].sampling.seed;
      if (!args_.json && i > 0) terminal_.out << '\n';
      print_one_of(requests[i].skill, responses[i], label);
      if (responses[i].ok()) {
        findings.push_back({requests[i].skill, *responses[i]});
      } else {
        failed = true;
      }
    }
    const int written = finish(terminal_);
    if (written != kExitOk) return written;
    const int drawn = draw(requests.front(), findings);
    return failed ? kExitFailed : drawn;
  }

  void print_one_of(const SkillRequest& skill, const Result<Response>& response,
                    const wire::AnswerLabel& label) {
    if (args_.json) {
      terminal_.out << (response.ok() ? wire::response_json(skill, *response, token_ids(), label)
                                      : wire::error_json(skill, response.error(), label))
                    << '\n';
    } else {
      const std::string heading = answer_heading(skill, label.seed);
      if (!heading.empty()) terminal_.out << heading << '\n';
      if (response.ok()) terminal_.out << response_text(skill, *response);
    }
    if (!response.ok()) {
      terminal_.out.flush();
      terminal_.err << "fovea: " << response.error().message << '\n' << std::flush;
    }
  }

  int draw(const Request& request, std::span<const Finding> findings) {
    if (!args_.annotate || findings.empty()) return kExitOk;
    const Status drawn =
        annotate(request, findings, args_.model.options.picture_limits, *args_.annotate);
    // The answer has been printed; a second object would only confuse its reader.
    return drawn.ok() ? kExitOk : report_failure(drawn.error(), /*json=*/false, terminal_);
  }

  StreamCallback stream_callback() {
    if (!args_.stream) return {};
    return [this](std::string_view piece) {
      terminal_.out << (args_.json ? wire::chunk_json(piece) + "\n" : printable(piece))
                    << std::flush;
      printed_text_ = true;
      return terminal_.out.good();  // nobody reads any more: stop
    };
  }

  wire::TokenIds token_ids() const {
    return args_.tokens ? wire::TokenIds::kList : wire::TokenIds::kLeaveOut;
  }

  void print(const Request& request, const Response& response) {
    if (args_.json) {
      terminal_.out << wire::response_json(request.skill, response, token_ids()) << '\n';
    } else if (args_.stream) {
      terminal_.out << '\n' << reasoning_text(response);
    } else {
      terminal_.out << response_text(request.skill, response);
    }
  }

  int fail(const Error& error) { return report_failure(error, args_.json, terminal_); }

  const SkillArgs& args_;
  Terminal& terminal_;
  bool printed_text_ = false;
};

}  // namespace

int run_skill(const SkillArgs& args, Terminal& terminal) {
  return SkillCommand(args, terminal).run();
}

}  // namespace fovea::cli
