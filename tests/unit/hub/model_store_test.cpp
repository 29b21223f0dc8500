#include "hub/model_store.h"

#include <fstream>
#include <gmock/gmock.h>

#include "support/scratch_folder.h"

namespace fovea::hub {
namespace {

namespace fs = std::filesystem;

class Store : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    root_ = testing_support::scratch_folder() / (std::string("fovea_store_") + test->name());
    fs::remove_all(root_);
    model_ = *parse_reference("moondream2");
  }
  void TearDown() override { fs::remove_all(root_); }

  void install(const std::string& content) {
    ASSERT_TRUE(make_folder(store().incoming(model_)).ok());
    std::ofstream(store().incoming(model_) / "weights") << content;
    const Manifest manifest{
        .repository = model_.repository,
        .revision = model_.revision,
        .commit = content,
        .licence = "mit",
        .files = {{"weights", content.size(), parse_digest(std::string(64, 'a'))}}};
    const Status installed = store().install(model_, manifest);
    ASSERT_TRUE(installed.ok()) << installed.error().message;
  }
  ModelStore store() const { return ModelStore(root_); }

  fs::path root_;
  ModelReference model_;
};

TEST_F(Store, AModelIsThereOnceItIsInstalled) {
  ASSERT_TRUE(make_folder(store().incoming(model_)).ok());
  EXPECT_FALSE(store().find(model_).has_value());

  install("first");

  ASSERT_TRUE(store().find(model_).has_value());
  EXPECT_EQ(store().find(model_)->commit, "first");
  EXPECT_EQ(store().find(model_)->licence, "mit");
  EXPECT_FALSE(fs::exists(store().incoming(model_)));
}

TEST_F(Store, ANewOneTakesItsPlaceWhole) {
  install("first");
  std::ofstream(store().folder(model_) / "old") << "old";

  install("second");

  EXPECT_EQ(store().find(model_)->commit, "second");
  EXPECT_FALSE(fs::exists(store().folder(model_) / "old"));
  EXPECT_FALSE(fs::exists(store().incoming(model_)));
}

TEST_F(Store, AFolderWithAMissingOrShortFileIsNoModel) {
  install("first");
  std::ofstream(store().folder(model_) / "weights") << "short"[0];
  EXPECT_FALSE(store().find(model_).has_value());
  fs::remove(store().folder(model_) / "weights");
  EXPECT_FALSE(store().find(model_).has_value());
}

TEST_F(Store, ListsWholeAndBegunModelsAndNobodyElsesFolders) {
  install("first");
  ASSERT_TRUE(make_folder(store().incoming(*parse_reference("a/b"))).ok());
  ASSERT_TRUE(make_folder(root_ / "my folder" / "of things").ok());

  const auto models = store().list();

  ASSERT_EQ(models->size(), 2U);
  EXPECT_EQ((*models)[0].name, "a/b");
  EXPECT_FALSE((*models)[0].manifest.has_value());
  EXPECT_EQ((*models)[1].name, "moondream2");
  EXPECT_TRUE((*models)[1].manifest.has_value());
}

TEST_F(Store, ALockedModelCannotBeRemoved) {
  install("first");
  {
    const Result<StoreLock> held = store().lock(model_, /*wait=*/false);
    ASSERT_TRUE(held.ok());
    EXPECT_EQ(store().remove(model_).error().code, ErrorCode::kFailedPrecondition);
  }
  EXPECT_TRUE(store().remove(model_).ok());
  EXPECT_EQ(store().remove(model_).error().code, ErrorCode::kNotFound);
}

TEST_F(Store, AnEmptyStoreListsNothing) { EXPECT_TRUE(store().list()->empty()); }

}  // namespace
}  // namespace fovea::hub
