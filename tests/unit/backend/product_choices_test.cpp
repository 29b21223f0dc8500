#include "backend/cuda/product_choices.h"

#include <fstream>
#include <gtest/gtest.h>
#include <string>

#include "support/scratch_folder.h"

namespace fovea::cuda {
namespace {

constexpr AlgorithmWords kWords = {1, 0xfeedfacecafebeef, 0, 7, 0, 0, 0xff, ~std::uint64_t{0}};
constexpr ProductShape kShape{
    .rows = 896, .outputs = 6144, .inputs = 2048, .kind = 9, .alignment = 256};

class ProductChoicesFile : public testing::Test {
 protected:
  std::string text() const {
    std::ifstream in(file_);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::filesystem::path file_ = testing_support::scratch_folder() /
                                testing::UnitTest::GetInstance()->current_test_info()->name() /
                                "products.txt";
};

TEST_F(ProductChoicesFile, KeepsChoicesForTheNextProcess) {
  ProductChoices first(file_);
  EXPECT_EQ(first.find(kShape), nullptr);
  first.add(kShape, kWords);
  ProductShape other = kShape;
  other.rows = 1024;
  first.add(other, AlgorithmWords{});
  ASSERT_NE(first.find(kShape), nullptr);

  const ProductChoices second(file_);
  ASSERT_NE(second.find(kShape), nullptr);
  EXPECT_EQ(*second.find(kShape), kWords);
  ASSERT_NE(second.find(other), nullptr);
  EXPECT_EQ(*second.find(other), AlgorithmWords{});
  other.kind = 8;
  EXPECT_EQ(second.find(other), nullptr);
}

TEST_F(ProductChoicesFile, TheLatestChoiceCounts) {
  ProductChoices(file_).add(kShape, AlgorithmWords{});
  ProductChoices(file_).add(kShape, kWords);
  const ProductChoices read(file_);
  ASSERT_NE(read.find(kShape), nullptr);
  EXPECT_EQ(*read.find(kShape), kWords);
}

TEST_F(ProductChoicesFile, PassesOverWhatItCannotRead) {
  std::filesystem::create_directories(file_.parent_path());
  const std::string line = ProductChoices::to_line({kShape, kWords});
  std::ofstream(file_) << "fovea\n\n" << line.substr(0, line.size() / 2) << "\n" << line << "\xff";
  const ProductChoices read(file_);
  ASSERT_NE(read.find(kShape), nullptr);
  EXPECT_EQ(*read.find(kShape), kWords);
}

TEST_F(ProductChoicesFile, StopsGrowing) {
  std::filesystem::create_directories(file_.parent_path());
  std::ofstream(file_) << std::string(ProductChoices::kMostBytes, '\n');
  ProductChoices choices(file_);
  choices.add(kShape, kWords);
  EXPECT_NE(choices.find(kShape), nullptr);
  EXPECT_EQ(std::filesystem::file_size(file_), ProductChoices::kMostBytes);
}

TEST_F(ProductChoicesFile, GoesOnWithoutAFile) {
  std::filesystem::create_directories(file_);  // a folder of that name
  ProductChoices choices(file_);
  choices.add(kShape, kWords);
  ASSERT_NE(choices.find(kShape), nullptr);
  EXPECT_EQ(*choices.find(kShape), kWords);
}

TEST(ProductChoicesLine, HoldsThirteenNumbersAndNothingElse) {
  const std::string line = ProductChoices::to_line({kShape, kWords});
  const std::string_view whole = std::string_view(line).substr(0, line.size() - 1);
  const auto read = ProductChoices::parse(whole);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->first, kShape);
  EXPECT_EQ(read->second, kWords);
  EXPECT_FALSE(ProductChoices::parse(line)) << "the end of the line is not part of it";
  for (std::size_t size = 0; size + 16 < whole.size(); ++size) {
    EXPECT_FALSE(ProductChoices::parse(whole.substr(0, size))) << size;
  }
  for (const char* wrong :
       {"-896 6144 2048 9 256 1 2 3 4 5 6 7 8", "896 6144 2048 9 256 1 2 3 4 5 6 7 8 9",
        "896  6144 2048 9 256 1 2 3 4 5 6 7 8", "0 6144 2048 9 256 1 2 3 4 5 6 7 8",
        "896 6144 2048 9 256 1 2 3 4 5 6 7 x",
        "896 6144 2048 9 256 1 2 3 4 5 6 7 10000000000000000",
        "99999999999999999999 6144 2048 9 256 1 2 3 4 5 6 7 8"}) {
    EXPECT_FALSE(ProductChoices::parse(wrong)) << wrong;
  }
}

TEST(ProductBucket, HoldsItsRowsAndFewOthers) {
  std::int64_t before = 0;
  for (std::int64_t rows = 17; rows <= 26 * 729; ++rows) {
    const std::int64_t bucket = bucket_of(rows);
    EXPECT_GE(bucket, rows);
    EXPECT_GE(bucket, before) << "buckets of " << rows;
    EXPECT_LT(bucket - rows, rows <= 256    ? 32
                             : rows <= 1024 ? 64
                             : rows <= 2560 ? 128
                                            : 256)
        << rows;
    before = bucket;
  }
}

}  // namespace
}  // namespace fovea::cuda
