#include "base/mapped_file.h"

#include <fstream>
#include <gtest/gtest.h>

#include "support/scratch_folder.h"

namespace fovea {
namespace {

std::filesystem::path write_temp(const std::string& name, const std::string& text) {
  const auto path = testing_support::scratch_folder() / name;
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

TEST(MappedFile, ShowsTheBytes) {
  const auto file = MappedFile::open(write_temp("mapped_bytes", "hello"));
  ASSERT_TRUE(file.ok()) << file.error().message;
  ASSERT_EQ(file->bytes().size(), 5u);
  EXPECT_EQ(static_cast<char>(file->bytes()[4]), 'o');
}

TEST(MappedFile, EmptyFileIsAnEmptySpan) {
  const auto file = MappedFile::open(write_temp("mapped_empty", ""));
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(file->bytes().empty());
}

TEST(MappedFile, NamesAMissingFile) {
  const auto file = MappedFile::open("/nonexistent/file.bin");
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.error().code, ErrorCode::kNotFound);
  EXPECT_NE(file.error().message.find("/nonexistent/file.bin"), std::string::npos);
}

TEST(MappedFile, RefusesAFolder) {
  const auto file = MappedFile::open(testing_support::scratch_folder());
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.error().code, ErrorCode::kInvalidArgument);
}

TEST(MappedFile, ReleasedPagesStayReadable) {
  const auto file = MappedFile::open(write_temp("mapped_release", std::string(100'000, 'x')));
  ASSERT_TRUE(file.ok());
  file->release(file->bytes());
  EXPECT_EQ(static_cast<char>(file->bytes()[50'000]), 'x');
}

}  // namespace
}  // namespace fovea
