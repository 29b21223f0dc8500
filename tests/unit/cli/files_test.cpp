#include "files.h"

#include <fstream>
#include <gmock/gmock.h>
#include <sstream>
#include <sys/resource.h>

#include "support/scratch_folder.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::vector<std::byte> some_bytes(std::size_t count) {
  return std::vector<std::byte>(count, std::byte{'x'});
}

class Files : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = testing_support::scratch_folder() / (std::string("fovea_files_") + test->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::size_t num_files() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  fs::path folder_;
};

// Makes writes beyond `bytes` fail as a full disk does, for as long as it lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit = {bytes, old_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { setrlimit(RLIMIT_FSIZE, &old_); }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit old_ = {};
};

TEST_F(Files, WhatIsWrittenIsReadBack) {
  ASSERT_TRUE(write_file(folder_ / "a.png", some_bytes(100'000)).ok());

  EXPECT_EQ(*read_file(folder_ / "a.png", 100'000), some_bytes(100'000));
  EXPECT_EQ(num_files(), 1U);
}

TEST_F(Files, ReadRefusesWhatIsLargerThanTheLimit) {
  ASSERT_TRUE(write_file(folder_ / "a", some_bytes(11)).ok());

  const auto bytes = read_file(folder_ / "a", 10);

  EXPECT_EQ(bytes.error().code, ErrorCode::kResourceExhausted);
  EXPECT_THAT(bytes.error().message, HasSubstr("11 bytes, more than the limit of 10 bytes"));
}

TEST_F(Files, ReadHoldsDevicesToTheLimitToo) {
  EXPECT_EQ(read_file("/dev/zero", 1 << 20).error().code, ErrorCode::kResourceExhausted);
}

TEST_F(Files, ReadExplainsFoldersAndMissingFiles) {
  EXPECT_EQ(read_file(folder_, 10).error().code, ErrorCode::kIo);
  EXPECT_EQ(read_file(folder_ / "none", 10).error().code, ErrorCode::kNotFound);
}

TEST_F(Files, StreamStopsAtTheLimit) {
  std::istringstream fits(std::string(10, 'x'));
  EXPECT_EQ(read_stream(fits, 10)->size(), 10U);

  std::istringstream large(std::string(1 << 20, 'x'));
  EXPECT_EQ(read_stream(large, 10).error().code, ErrorCode::kResourceExhausted);
  EXPECT_LT(large.tellg(), 1 << 20);
}

TEST_F(Files, FullDiskLeavesTheOlderFileAndNoPart) {
  ASSERT_TRUE(write_file(folder_ / "a.png", some_bytes(10)).ok());
  Status status;
  {
    const FileSizeLimit limit(50'000);
    status = write_file(folder_ / "a.png", some_bytes(100'000));
  }

  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kIo);
  EXPECT_THAT(status.error().message, AllOf(HasSubstr("a.png"), HasSubstr("too large")));
  EXPECT_EQ(*read_file(folder_ / "a.png", 100), some_bytes(10));
  EXPECT_EQ(num_files(), 1U);
}

TEST_F(Files, WritingThroughALinkReplacesItsTarget) {
  ASSERT_TRUE(write_file(folder_ / "real.png", some_bytes(1)).ok());
  fs::create_symlink("real.png", folder_ / "link.png");

  ASSERT_TRUE(write_file(folder_ / "link.png", some_bytes(7)).ok());

  EXPECT_TRUE(fs::is_symlink(folder_ / "link.png"));
  EXPECT_EQ(fs::file_size(folder_ / "real.png"), 7U);
}

TEST_F(Files, CheckWritableFindsWhatCannotWork) {
  EXPECT_TRUE(check_writable(folder_ / "a.png").ok());
  EXPECT_FALSE(check_writable(folder_ / "none" / "a.png").ok());
  fs::create_directory(folder_ / "b.png");
  EXPECT_THAT(check_writable(folder_ / "b.png").error().message, HasSubstr("is no file"));
  ASSERT_TRUE(write_file(folder_ / "file", some_bytes(1)).ok());
  EXPECT_THAT(check_writable(folder_ / "file" / "c.png").error().message,
              HasSubstr("Not a directory"));
}

}  // namespace
}  // namespace fovea::cli
