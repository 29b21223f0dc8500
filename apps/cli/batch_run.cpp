#include "batch_run.h"

#include <algorithm>
#include <exception>
#include <fmt/format.h>
#include <future>
#include <memory>
#include <thread>
#include <utility>

#include "fovea/picture.h"

#include "batch_question.h"
#include "files.h"
#include "text_output.h"

namespace fovea::cli {
namespace {

using wire::BatchRecord;

constexpr std::uint64_t kMaxBytesInHand = std::uint64_t{256} << 20;
constexpr std::size_t kMaxWaiting = 32;
constexpr int kRedrawMs = 500;

BatchRecord make_record(const BatchRun::Parts& parts, const PictureFile& file,
                        const SkillRequest& question, Result<Response> answer) {
  BatchRecord record;
  record.path = file.path;
  record.skill = wire::skill_name(question);
  record.text = text_of(question);
  record.size_bytes = file.size_bytes;
  record.modified_ms = file.modified_ms;
  record.key = parts.key;
  record.answer = std::move(answer);
  return record;
}

// Not the picture's fault: the next run is to ask again, and this one need not go on.
bool concerns_all(const Error& error) {
  return error.code == ErrorCode::kDeviceLost || error.code == ErrorCode::kCancelled;
}

}  // namespace

std::size_t BatchRun::pictures_in_hand(int max_sequences, std::size_t num_questions) {
  const auto running = static_cast<std::size_t>(max_sequences);
  const std::size_t requests = running + std::min(running, kMaxWaiting);
  return std::max<std::size_t>((requests + num_questions - 1) / num_questions, 2);
}

BatchOutcome BatchRun::run(StopSignal& stop) {
  const std::size_t num_threads = std::min(
      parts_.todo.size(),
      pictures_in_hand(parts_.args.model.options.max_sequences, parts_.args.questions.size()));
  num_working_ = num_threads;
  std::vector<std::thread> threads;
  threads.reserve(num_threads);
  for (std::size_t i = 0; i < num_threads; ++i) threads.emplace_back([&] { work(stop); });
  for (bool goes_on = num_threads > 0; goes_on;) {
    const int signal = stop.wait(kRedrawMs);
    if (signal != 0) stop_all({});
    const std::lock_guard lock(mutex_);
    outcome_.signal = signal;
    parts_.progress.redraw();
    goes_on = num_working_ > 0;
  }
  for (std::thread& thread : threads) thread.join();
  parts_.progress.wipe();
  return outcome_;
}

void BatchRun::work(StopSignal& stop) {
  try {
    while (const std::optional<std::size_t> idx = next()) process(*idx);
  } catch (const std::exception& failure) {
    // Only the standard library throws here, when memory runs out.
    stop_all(Error{ErrorCode::kResourceExhausted, failure.what()});
  }
  const std::lock_guard lock(mutex_);
  --num_working_;
  stop.wake();
}

std::optional<std::size_t> BatchRun::next() {
  const std::lock_guard lock(mutex_);
  if (is_stopped() || next_idx_ == parts_.todo.size()) return {};
  return parts_.todo[next_idx_++];
}

std::vector<std::size_t> BatchRun::open_questions(std::size_t picture_idx) const {
  std::vector<std::size_t> open;
  for (std::size_t i = 0; i < parts_.args.questions.size(); ++i) {
    if (!parts_.journal.has(picture_idx, i)) open.push_back(i);
  }
  return open;
}

// The share of the files in memory that one picture holds while it is in hand.
class BatchRun::FileBudget {
 public:
  FileBudget(BatchRun& run, std::uint64_t size_bytes) : run_(run), size_bytes_(size_bytes) {
    std::unique_lock lock(run_.mutex_);
    run_.budget_changed_.wait(lock, [this] {
      return run_.bytes_in_hand_ == 0 || run_.bytes_in_hand_ + size_bytes_ <= kMaxBytesInHand;
    });
    run_.bytes_in_hand_ += size_bytes_;
  }
  FileBudget(const FileBudget&) = delete;
  FileBudget& operator=(const FileBudget&) = delete;
  ~FileBudget() {
    const std::lock_guard lock(run_.mutex_);
    run_.bytes_in_hand_ -= size_bytes_;
    run_.budget_changed_.notify_all();
  }

 private:
  BatchRun& run_;
  std::uint64_t size_bytes_;
};

void BatchRun::process(std::size_t picture_idx) {
  const PictureFile& file = parts_.pictures[picture_idx];
  const std::vector<std::size_t> questions = open_questions(picture_idx);
  const auto fail = [&](const Error& error) {
    if (Status status = write_error(picture_idx, error); !status.ok()) stop_all(status.error());
    count(/*failed=*/true);
  };
  if (file.problem) return fail(*file.problem);
  const std::size_t max_bytes = parts_.args.model.options.picture_limits.max_bytes;
  const FileBudget budget(*this, std::min<std::uint64_t>(file.size_bytes, max_bytes));
  if (is_stopped()) return;
  Result<std::vector<std::byte>> bytes = read_file(file.real, max_bytes);
  if (!bytes.ok()) return fail(bytes.error());
  const Picture picture(std::move(bytes).value());

  std::vector<Result<Response>> answers = ask(picture, questions);
  if (answers.size() < questions.size()) return;  // stopped
  Status written = write_answers(picture_idx, picture, questions, answers);
  if (!written.ok()) stop_all(written.error());
  for (const Result<Response>& answer : answers) {
    if (!answer.ok() && concerns_all(answer.error())) return;
  }
  count(/*failed=*/!open_questions(picture_idx).empty());
}

std::vector<Result<Response>> BatchRun::ask(const Picture& picture,
                                            std::span<const std::size_t> questions) {
  std::vector<std::uint64_t> ids;
  std::vector<std::future<Result<Response>>> coming;
  for (const std::size_t question : questions) {
    Request request;
    request.skill = parts_.args.questions[question];
    request.picture = picture;
    request.apply_exif = parts_.args.apply_exif;
    request.sampling = parts_.args.sampling;
    const auto& adapters = parts_.args.model.options.adapters;
    if (!adapters.empty()) request.adapter = adapters.back().first;

    const auto answer = std::make_shared<std::promise<Result<Response>>>();
    Callbacks callbacks;
    callbacks.on_done = [answer](Result<Response> done) { answer->set_value(std::move(done)); };
    Result<std::uint64_t> id = parts_.engine->submit(std::move(request), std::move(callbacks));
    if (!id.ok()) {
      // Pictures are looked at later: what is wrong here is wrong for all of them.
      stop_all(id.error());
      break;
    }
    ids.push_back(*id);
    coming.push_back(answer->get_future());
    const std::lock_guard lock(mutex_);
    in_engine_.insert(*id);
    if (is_stopped()) parts_.engine->cancel(*id);
  }
  std::vector<Result<Response>> answers;
  answers.reserve(coming.size());
  for (auto& answer : coming) answers.push_back(answer.get());
  const std::lock_guard lock(mutex_);
  for (const std::uint64_t id : ids) in_engine_.erase(id);
  return answers;
}

Status BatchRun::write_answers(std::size_t picture_idx, const Picture& picture,
                               std::span<const std::size_t> questions,
                               std::span<Result<Response>> answers) {
  const PictureFile& file = parts_.pictures[picture_idx];
  const bool any = std::ranges::any_of(answers, [](const auto& answer) { return answer.ok(); });
  std::optional<Image> image;
  if ((any || questions.empty()) && (parts_.args.coco || parts_.args.annotate)) {
    Result<Image> decoded = decode_picture(
        *picture.file(), parts_.args.model.options.picture_limits, parts_.args.apply_exif);
    if (!decoded.ok()) return decoded.error();
    image = std::move(decoded).value();
  }
  const auto token_ids = parts_.args.tokens ? wire::TokenIds::kList : wire::TokenIds::kLeaveOut;
  std::optional<Error> told;
  for (std::size_t i = 0; i < questions.size(); ++i) {
    const SkillRequest& question = parts_.args.questions[questions[i]];
    BatchRecord record = make_record(parts_, file, question, std::move(answers[i]));
    if (image) {
      record.width = image->width;
      record.height = image->height;
    }
    answers[i] = record.answer.ok() ? Result<Response>(Response{}) : record.answer.error();
    if (!record.answer.ok() && concerns_all(record.answer.error())) {
      // After stop_all() a cancelled request is what was asked for; the first word counts.
      stop_all(record.answer.error());
      continue;
    }
    Status status = parts_.journal.append(picture_idx, questions[i], record, question, token_ids);
    if (!status.ok()) return status;
    if (record.answer.ok() || (told && told->message == record.answer.error().message)) continue;
    told = record.answer.error();
    report(file, *told);
  }
  return write_side_files(
      picture_idx, image ? &*image : nullptr,
      questions.empty() ? BatchSideFiles::Which::kMissing : BatchSideFiles::Which::kAll);
}

Status BatchRun::write_error(std::size_t picture_idx, const Error& error) {
  const PictureFile& file = parts_.pictures[picture_idx];
  for (const std::size_t question : open_questions(picture_idx)) {
    const SkillRequest& skill = parts_.args.questions[question];
    Status status =
        parts_.journal.append(picture_idx, question, make_record(parts_, file, skill, error), skill,
                              wire::TokenIds::kLeaveOut);
    if (!status.ok()) return status;
  }
  report(file, error);
  return {};
}

// Side files show all answers about a picture, also those of earlier runs, so they wait for all.
Status BatchRun::write_side_files(std::size_t picture_idx, const Image* image,
                                  BatchSideFiles::Which which) {
  if (parts_.side_files.annotated(picture_idx).empty() &&
      parts_.side_files.sidecar(picture_idx).empty()) {
    return {};
  }
  if (!open_questions(picture_idx).empty()) return {};
  std::vector<Response> responses;
  for (std::size_t i = 0; i < parts_.args.questions.size(); ++i) {
    Result<BatchRecord> record = parts_.journal.read(picture_idx, i);
    if (!record.ok()) return record.error();
    responses.push_back(std::move(record->answer).value());
  }
  return parts_.side_files.write(picture_idx, image, parts_.args.questions, responses, which);
}

void BatchRun::report(const PictureFile& file, const Error& error) {
  const bool names_it = error.message.find(file.path) != std::string::npos;
  const std::string text =
      names_it ? error.message : fmt::format("{}: {}", file.path, error.message);
  const std::lock_guard lock(mutex_);
  parts_.progress.message("fovea: " + printable(text));
}

void BatchRun::count(bool failed) {
  const std::lock_guard lock(mutex_);
  ++(failed ? outcome_.num_failed : outcome_.num_answered);
  parts_.progress.advance(failed);
}

void BatchRun::stop_all(std::optional<Error> failure) {
  const std::lock_guard lock(mutex_);
  if (stopped_.exchange(true)) return;
  outcome_.failure = std::move(failure);
  for (const std::uint64_t id : in_engine_) parts_.engine->cancel(id);
}

}  // namespace fovea::cli
