#include "batch_journal.h"

#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <sstream>

#include "support/scratch_folder.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Mode = BatchJournal::Mode;

class Journal : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    path_ = testing_support::scratch_folder() / (std::string("fovea_journal_") + test->name());
    fs::remove(path_);
    for (const char* name : {"a", "b", "c"}) {
      PictureFile file;
      file.path = name;
      file.size_bytes = 5;
      file.modified_ms = 1000;
      pictures_.push_back(file);
    }
  }
  void TearDown() override { fs::remove(path_); }

  Result<BatchJournal> open(Mode mode = Mode::kGoOn) {
    return BatchJournal::open(path_, {pictures_, questions_, key_}, mode);
  }
  Status append(BatchJournal& journal, std::size_t picture, std::size_t question,
                Result<Response> answer = Response{}) {
    wire::BatchRecord record;
    record.path = pictures_[picture].path;
    record.skill = "detect";
    record.text = std::get<DetectRequest>(questions_[question]).object;
    record.size_bytes = pictures_[picture].size_bytes;
    record.modified_ms = pictures_[picture].modified_ms;
    record.key = key_;
    record.answer = std::move(answer);
    return journal.append(picture, question, record, questions_[question],
                          wire::TokenIds::kLeaveOut);
  }
  // A journal with answers to question 0 about all three.
  void fill() {
    Result<BatchJournal> journal = open();
    for (std::size_t i = 0; i < pictures_.size(); ++i) {
      ASSERT_TRUE(append(*journal, i, 0, Response{.boxes = {{.x_max = 0.25 * double(i)}}}).ok());
    }
  }
  std::string content() const {
    std::ostringstream text;
    text << std::ifstream(path_).rdbuf();
    return text.str();
  }
  std::size_t num_lines() const {
    const std::string text = content();
    return std::size_t(std::count(text.begin(), text.end(), '\n'));
  }

  fs::path path_;
  std::string key_ = "0011";
  std::vector<PictureFile> pictures_;
  std::vector<SkillRequest> questions_ = {DetectRequest{"car", {}}, DetectRequest{"dog", {}}};
};

TEST_F(Journal, GivesBackWhatWasWritten) {
  fill();

  Result<BatchJournal> journal = open();

  EXPECT_TRUE(journal->has(1, 0));
  EXPECT_FALSE(journal->has(1, 1));
  EXPECT_EQ(journal->read(2, 0)->answer->boxes.at(0).x_max, 0.5);
  ASSERT_TRUE(append(*journal, 1, 1).ok());
  EXPECT_TRUE(journal->has(1, 1));
  EXPECT_EQ(journal->read(1, 1)->text, "dog");
}

TEST_F(Journal, AHalfLineIsCutOffWhereverItEnds) {
  fill();
  const std::string whole = content();
  const std::size_t last = whole.rfind('\n', whole.size() - 2) + 1;
  for (const std::size_t size : {last + 1, last + 9, last + 30, whole.size() - 1}) {
    std::ofstream(path_) << whole.substr(0, size);

    Result<BatchJournal> journal = open();

    ASSERT_TRUE(journal.ok()) << size << journal.error().message;
    EXPECT_EQ(journal->cut_off_bytes(), size - last);
    EXPECT_TRUE(journal->has(1, 0));
    EXPECT_FALSE(journal->has(2, 0)) << size;
    ASSERT_TRUE(append(*journal, 2, 0, Response{.boxes = {{.x_max = 0.5}}}).ok());
    EXPECT_EQ(content(), whole) << size;
  }
}

TEST_F(Journal, AChangedPictureIsAskedAgain) {
  fill();
  pictures_[0].modified_ms = 2000;
  pictures_[1].size_bytes = 6;

  Result<BatchJournal> journal = open();

  EXPECT_FALSE(journal->has(0, 0));
  EXPECT_FALSE(journal->has(1, 0));
  EXPECT_TRUE(journal->has(2, 0));
  EXPECT_EQ(num_lines(), 1U) << "what does not hold any more is taken out";
  EXPECT_EQ(journal->read(2, 0)->path, "c");
}

TEST_F(Journal, AnErrorIsAskedAgainAndItsLineGoes) {
  {
    Result<BatchJournal> journal = open();
    ASSERT_TRUE(append(*journal, 0, 0, Error{ErrorCode::kIo, "gone"}).ok());
    EXPECT_FALSE(journal->has(0, 0));
  }
  EXPECT_EQ(num_lines(), 1U);

  EXPECT_FALSE(open()->has(0, 0));
  EXPECT_EQ(num_lines(), 0U);
}

TEST_F(Journal, AnswersAboutOtherPicturesStay) {
  fill();
  const std::vector<PictureFile> all = pictures_;
  pictures_ = {all[1]};
  pictures_[0].size_bytes = 77;

  Result<BatchJournal> journal = open();
  ASSERT_TRUE(append(*journal, 0, 0).ok());
  EXPECT_EQ(num_lines(), 3U);
  pictures_ = all;
  EXPECT_FALSE(open().ok()) << "two at once";
  { const BatchJournal closed = std::move(journal).value(); }
  EXPECT_TRUE(open()->has(0, 0));
  EXPECT_TRUE(open()->has(2, 0));
}

TEST_F(Journal, OtherQuestionsAndOptionsAreRefusedAndNothingIsTouched) {
  fill();
  const std::string before = content();
  const auto refusal = [this] {
    const Result<BatchJournal> journal = open();
    return journal.ok() ? std::string("accepted") : journal.error().message;
  };

  key_ = "0012";
  EXPECT_THAT(refusal(), HasSubstr("other options"));
  key_ = "0011";
  questions_ = {DetectRequest{"cat", {}}};
  EXPECT_THAT(refusal(), HasSubstr("another question, detect \"car\""));
  EXPECT_EQ(content(), before);
}

TEST_F(Journal, SomebodysFileIsNeverTouched) {
  for (const char* text : {"dear diary", "dear diary\n", "{\"path\":3}\n", "\x89PNG\r\n"}) {
    std::ofstream(path_) << text;
    for (const Mode mode : {Mode::kGoOn, Mode::kLook}) EXPECT_FALSE(open(mode).ok()) << text;
    EXPECT_FALSE(open(Mode::kBeginAnew).ok()) << text;
    EXPECT_EQ(content(), text);
  }
}

TEST_F(Journal, BeginningAnewForgetsAnswersToWhateverQuestion) {
  fill();
  key_ = "0012";

  Result<BatchJournal> journal = open(Mode::kBeginAnew);

  ASSERT_TRUE(journal.ok()) << journal.error().message;
  EXPECT_FALSE(journal->has(0, 0));
  EXPECT_EQ(content(), "");
}

TEST_F(Journal, LookingChangesNothing) {
  EXPECT_TRUE(open(Mode::kLook).ok());
  EXPECT_FALSE(fs::exists(path_));
  fill();
  std::ofstream(path_, std::ios::app) << "{\"path\":\"ha";
  pictures_[0].size_bytes = 6;
  const std::string before = content();

  Result<BatchJournal> journal = open(Mode::kLook);

  EXPECT_FALSE(journal->has(0, 0));
  EXPECT_TRUE(journal->has(1, 0));
  EXPECT_EQ(content(), before);
}

TEST_F(Journal, OneProcessWritesAtATime) {
  Result<BatchJournal> first = open();

  const Result<BatchJournal> second = open();

  ASSERT_FALSE(second.ok());
  EXPECT_THAT(second.error().message, HasSubstr("another process writes"));
}

TEST_F(Journal, ALineThatFindsNoRoomIsNotThereAtAll) {
  const Result<BatchJournal> full =
      BatchJournal::open("/dev/full", {pictures_, questions_, key_}, Mode::kGoOn);
  EXPECT_FALSE(full.ok()) << "devices are no files of answers";
}

}  // namespace
}  // namespace fovea::cli
