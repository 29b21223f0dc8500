#include <fmt/format.h>
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
    Result<Request> request = make_request();
    if (!request.ok()) return fail(request.error());
    Result<std::unique_ptr<Engine>> engine = load_engine(args_.model, terminal_);
    if (!engine.ok()) return fail(engine.error());

    const Result<Response> response = (*engine)->run(*request, stream_callback());
    if (!response.ok()) {
      // A started line of streamed text is ended before the message.
      if (printed_text_ && !args_.json) terminal_.out << '\n' << std::flush;
      return fail(response.error());
    }
    print(*response);
    const int written = finish(terminal_);
    if (written != kExitOk || !args_.annotate) return written;

    const Status drawn =
        annotate(*request, *response, args_.model.options.picture_limits, *args_.annotate);
    // The answer has been printed; a second object would only confuse its reader.
    return drawn.ok() ? kExitOk : report_failure(drawn.error(), /*json=*/false, terminal_);
  }

 private:
  Result<Request> make_request() {
    Request request;
    request.skill = args_.skill;
    request.apply_exif = args_.apply_exif;
    request.sampling = args_.sampling;
    const auto& adapters = args_.model.options.adapters;
    if (!adapters.empty()) request.adapter = adapters.back().first;
    if (!args_.picture) return request;
    const std::size_t max_bytes = args_.model.options.picture_limits.max_bytes;
    Result<std::vector<std::byte>> bytes = args_.picture->path == "-"
                                               ? read_stream(terminal_.in, max_bytes)
                                               : read_file(args_.picture->path, max_bytes);
    if (!bytes.ok()) return std::move(bytes).error();
    request.picture = std::move(bytes).value();
    return request;
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

  void print(const Response& response) {
    if (args_.json) {
      const auto ids = args_.tokens ? wire::TokenIds::kList : wire::TokenIds::kLeaveOut;
      terminal_.out << wire::response_json(args_.skill, response, ids) << '\n';
    } else if (args_.stream) {
      terminal_.out << '\n' << reasoning_text(response);
    } else {
      terminal_.out << response_text(args_.skill, response);
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
