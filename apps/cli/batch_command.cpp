#include "batch_command.h"

#include <cstddef>
#include <fmt/format.h>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "batch_export.h"
#include "batch_journal.h"
#include "batch_pictures.h"
#include "batch_progress.h"
#include "batch_question.h"
#include "batch_run.h"
#include "batch_side_files.h"
#include "batch_stop.h"
#include "files.h"
#include "model_path.h"
#include "text_output.h"

namespace fovea::cli {
namespace {

class BatchCommand {
 public:
  BatchCommand(BatchArgs args, Terminal& terminal) : args_(std::move(args)), terminal_(terminal) {}

  int run() {
    // What is cheap to find wrong is found before a model is loaded.
    if (Status status = prepare(); !status.ok()) return fail(status.error());
    find_todo();
    for (const Error& problem : pictures_.problems) tell(problem.message);
    if (args_.dry_run) return list();

    if (needs_model_) {
      Result<std::unique_ptr<Engine>> engine = load();
      if (!engine.ok()) return fail(engine.error());
      engine_ = std::move(engine).value();
    }
    StopSignal stop;
    BatchOutcome outcome;
    {
      BatchProgress progress(terminal_.err, terminal_.err_is_terminal, todo_.size());
      BatchRun batch(
          {args_, pictures_.files, todo_, key_, *journal_, *side_files_, progress, engine_.get()});
      outcome = batch.run(stop);
    }
    return end(outcome);
  }

 private:
  Status prepare() {
    if (args_.json_schema) {
      const Result<std::string> schema = read_schema(*args_.json_schema);
      if (!schema.ok()) return schema.error();
      for (SkillRequest& question : args_.questions) {
        if (auto* query = std::get_if<QueryRequest>(&question)) query->json_schema = *schema;
      }
    }
    Result<BatchPictures> pictures = find_pictures(args_, terminal_.in);
    if (!pictures.ok()) return std::move(pictures).error();
    pictures_ = std::move(pictures).value();
    Result<std::filesystem::path> model = find_model(args_.model, terminal_);
    if (!model.ok()) return std::move(model).error();
    key_ = batch_key(args_, *model);

    if (Status status = check_writable(args_.out); !status.ok()) return status;
    const BatchJournal::Plan plan{pictures_.files, args_.questions, key_};
    const auto mode = args_.dry_run     ? BatchJournal::Mode::kLook
                      : args_.overwrite ? BatchJournal::Mode::kBeginAnew
                                        : BatchJournal::Mode::kGoOn;
    Result<BatchJournal> journal = BatchJournal::open(args_.out, plan, mode);
    if (!journal.ok()) return std::move(journal).error();
    journal_.emplace(std::move(journal).value());
    Result<BatchSideFiles> side_files = BatchSideFiles::plan(args_, pictures_, *journal_);
    if (!side_files.ok()) return std::move(side_files).error();
    side_files_ = std::move(side_files).value();
    return check_exports({args_, pictures_, *journal_});
  }

  bool is_answered(std::size_t picture_idx) const {
    for (std::size_t q = 0; q < args_.questions.size(); ++q) {
      if (!journal_->has(picture_idx, q)) return false;
    }
    return true;
  }

  void find_todo() {
    for (std::size_t i = 0; i < pictures_.files.size(); ++i) {
      const bool answered = is_answered(i);
      if (answered && !side_files_->is_missing(i)) continue;
      todo_.push_back(i);
      needs_model_ = needs_model_ || (!answered && !pictures_.files[i].problem);
    }
    num_kept_ = pictures_.files.size() - todo_.size();
  }

  // A dry run: what would happen to each picture, and then to the whole.
  int list() {
    std::size_t next = 0;
    for (std::size_t i = 0; i < pictures_.files.size(); ++i) {
      const PictureFile& file = pictures_.files[i];
      const bool is_todo = next < todo_.size() && todo_[next] == i;
      if (is_todo) ++next;
      const char* verb = !is_todo         ? "keep"
                         : file.problem   ? "fail"
                         : is_answered(i) ? "draw"
                                          : "ask ";
      terminal_.out << fmt::format("{}  {}", verb, printable(file.path));
      for (const auto& name : {side_files_->annotated(i), side_files_->sidecar(i)}) {
        if (is_todo && !file.problem && !name.empty()) {
          terminal_.out << fmt::format("  -> {}", printable(name.string()));
        }
      }
      terminal_.out << '\n';
    }
    for (const auto& name : {std::optional(args_.out), args_.csv, args_.coco, args_.yolo}) {
      if (name) terminal_.out << fmt::format("write {}\n", name->string());
    }
    terminal_.out << fmt::format("{} pictures: {} to do, {} done before; {} named twice\n",
                                 pictures_.files.size(), todo_.size(), num_kept_,
                                 pictures_.num_repeated);
    return finish(terminal_);
  }

  Result<std::unique_ptr<Engine>> load() {
    ModelArgs model = args_.model;
    const std::size_t in_hand =
        BatchRun::pictures_in_hand(model.options.max_sequences, args_.questions.size());
    // An answer arrives a moment before its place in the queue is free: there is room for both.
    model.options.max_queue = static_cast<int>(2 * in_hand * args_.questions.size());
    return load_engine(model, terminal_);
  }

  int end(const BatchOutcome& outcome) {
    std::optional<Error> failure = outcome.failure;
    const auto also = [&failure](const Status& status) {
      if (!status.ok() && !failure) failure = status.error();
    };
    also(journal_->flush());
    // Before the first answer there is nothing to make a table of.
    if (!journal_->is_empty()) also(write_exports({args_, pictures_, *journal_}));
    std::string text =
        fmt::format("{} pictures: {} answered", pictures_.files.size(), outcome.num_answered);
    if (num_kept_ > 0) text += fmt::format(", {} before", num_kept_);
    if (outcome.num_failed > 0) text += fmt::format(", {} failed", outcome.num_failed);
    const std::size_t open = todo_.size() - outcome.num_answered - outcome.num_failed;
    if (open > 0) text += fmt::format(", {} not reached", open);
    terminal_.err << text << "; " << args_.out.string() << '\n' << std::flush;
    if (failure) return fail(*failure);
    if (outcome.signal != 0) {
      tell("interrupted; the same command goes on from here");
      return kExitSignalled + outcome.signal;
    }
    return outcome.num_failed == 0 && pictures_.problems.empty() ? kExitOk : kExitFailed;
  }

  void tell(const std::string& message) {
    terminal_.err << "fovea: " << printable(message) << '\n' << std::flush;
  }
  int fail(const Error& error) {
    tell(error.message);
    return kExitFailed;
  }

  BatchArgs args_;
  Terminal& terminal_;
  BatchPictures pictures_;
  std::string key_;
  std::optional<BatchJournal> journal_;
  std::optional<BatchSideFiles> side_files_;
  std::vector<std::size_t> todo_;  // indices of pictures
  std::size_t num_kept_ = 0;
  bool needs_model_ = false;
  std::unique_ptr<Engine> engine_;
};

}  // namespace

int run_batch(const BatchArgs& args, Terminal& terminal) {
  return BatchCommand(args, terminal).run();
}

}  // namespace fovea::cli
