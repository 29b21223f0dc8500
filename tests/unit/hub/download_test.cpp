#include "hub/download.h"

#include <deque>
#include <fstream>
#include <gmock/gmock.h>
#include <sstream>

#include "support/scratch_folder.h"

namespace fovea::hub {
namespace {

namespace fs = std::filesystem;

// Answers that a test wrote down, in order; no network.
class Script final : public Transport {
 public:
  struct Answer {
    int status = 200;
    std::map<std::string, std::string> headers{};
    std::string body{};
    bool breaks = false;  // the connection, behind the body
  };

  HttpOutcome send(const HttpRequest& request, BodySink& sink) override {
    requests.push_back(request);
    HttpOutcome outcome;
    if (answers.empty()) {
      ADD_FAILURE() << "one request too many";
      outcome.status = Error{ErrorCode::kInternal, "no answer"};
      outcome.worth_retrying = false;
      return outcome;
    }
    const Answer answer = answers.front();
    answers.pop_front();
    outcome.response = {answer.status, answer.headers};
    if (answer.status / 100 == 2) {
      outcome.status = sink.begin(outcome.response);
      if (outcome.status.ok()) outcome.status = sink.write(std::as_bytes(std::span(answer.body)));
      outcome.worth_retrying = false;
    }
    if (outcome.status.ok() && answer.breaks) {
      outcome.status = Error{ErrorCode::kIo, "broken"};
      outcome.worth_retrying = true;
    }
    return outcome;
  }

  std::deque<Answer> answers;
  std::vector<HttpRequest> requests;
};

class Download : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = testing_support::scratch_folder() / (std::string("fovea_download_") + test->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    policy_.wait = [](std::chrono::milliseconds) {};
    policy_.retries = 2;
  }
  void TearDown() override { fs::remove_all(folder_); }

  Status fetch() {
    Downloader downloader(script_, policy_, events_, progress_);
    return downloader.fetch("https://hub/x", "token", file_, folder_);
  }
  std::string content() const {
    std::ostringstream text;
    text << std::ifstream(folder_ / file_.name).rdbuf();
    return text.str();
  }
  std::size_t files_in_folder() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  // The blob id of "hello world\n", as `git hash-object` gives it.
  RemoteFile file_{"greeting", 12, parse_digest("3b18e512dba79e4c8300dd08aeb37f8e728b8dad")};
  Script script_;
  RetryPolicy policy_;
  PullEvents events_;
  PullEvents::Progress progress_;
  fs::path folder_;
};

TEST_F(Download, ArrivesUnderItsNameAndLeavesNothingElse) {
  script_.answers = {{.body = "hello world\n"}};

  ASSERT_TRUE(fetch().ok());

  EXPECT_EQ(content(), "hello world\n");
  EXPECT_EQ(files_in_folder(), 1U);
  EXPECT_EQ(script_.requests[0].token, "token");
  EXPECT_EQ(progress_.done, 12U);
  EXPECT_EQ(progress_.received, 12U);
}

TEST_F(Download, AsksForTheRestUnderTheSameEtag) {
  script_.answers = {
      {.headers = {{"etag", "\"v1\""}}, .body = "hello ", .breaks = true},
      {.status = 206, .headers = {{"content-range", "bytes 6-11/12"}}, .body = "world\n"}};

  ASSERT_TRUE(fetch().ok());

  EXPECT_EQ(script_.requests[1].range_begin, 6U);
  EXPECT_EQ(script_.requests[1].if_range, "\"v1\"");
  EXPECT_EQ(content(), "hello world\n");
}

TEST_F(Download, AWeakEtagIsNoPromise) {
  script_.answers = {
      {.headers = {{"etag", "W/\"v1\""}}, .body = "hello ", .breaks = true},
      {.status = 206, .headers = {{"content-range", "bytes 6-11/12"}}, .body = "world\n"}};

  ASSERT_TRUE(fetch().ok());

  EXPECT_EQ(script_.requests[1].if_range, "");
}

TEST_F(Download, BeginsAnewWhenTheWholeFileComesInsteadOfTheRest) {
  script_.answers = {{.body = "HELLO ", .breaks = true}, {.body = "hello world\n"}};

  ASSERT_TRUE(fetch().ok());

  EXPECT_EQ(content(), "hello world\n");
}

TEST_F(Download, APartThatWasNotAskedForIsRefused) {
  for (const char* range : {"bytes 5-11/12", "bytes 6-11/13", "bytes */12", "items 6-11/12", ""}) {
    script_.answers = {{.body = "hello ", .breaks = true},
                       {.status = 206, .headers = {{"content-range", range}}, .body = "world\n"}};
    EXPECT_FALSE(fetch().ok()) << range;
    EXPECT_FALSE(fs::exists(folder_ / file_.name));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
}

TEST_F(Download, BytesThatTheServerDoesNotHaveAreThrownAway) {
  script_.answers = {
      {.body = "hello ", .breaks = true}, {.status = 416}, {.body = "hello world\n"}};

  ASSERT_TRUE(fetch().ok());

  EXPECT_EQ(script_.requests[2].range_begin, 0U);
}

TEST_F(Download, AWrongSumIsFetchedOnceMoreAndThenGivenUp) {
  script_.answers = {{.body = "hello worlds"}, {.body = "hello worlds"}};

  const Status status = fetch();

  ASSERT_FALSE(status.ok());
  EXPECT_THAT(status.error().message, ::testing::HasSubstr("3b18e512"));
  EXPECT_FALSE(fs::exists(folder_ / file_.name));
  EXPECT_EQ(script_.requests.size(), 2U);
}

TEST_F(Download, WhatLiesThereIsKeptOnlyWithTheRightSum) {
  std::ofstream(folder_ / file_.name) << "hello world\n";
  ASSERT_TRUE(fetch().ok());
  EXPECT_TRUE(script_.requests.empty());

  std::ofstream(folder_ / file_.name) << "hello worlds";
  script_.answers = {{.body = "hello world\n"}};
  ASSERT_TRUE(fetch().ok());
  EXPECT_EQ(content(), "hello world\n");
}

TEST_F(Download, AnEmptyFileNeedsNoServer) {
  file_ = {"empty", 0, parse_digest("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")};

  ASSERT_TRUE(fetch().ok());

  EXPECT_EQ(fs::file_size(folder_ / "empty"), 0U);
}

}  // namespace
}  // namespace fovea::hub
