#include "hub/known_models.h"

#include <gtest/gtest.h>

#include "hub/repository.h"

namespace fovea::hub {
namespace {

TEST(KnownModels, TheTableIsWellFormed) {
  for (const KnownModel& model : known_models()) {
    EXPECT_TRUE(is_repository_name(model.repository)) << model.name;
    EXPECT_TRUE(is_revision(model.revision)) << model.name;
    EXPECT_TRUE(is_repository_name(model.tokenizer_repository)) << model.name;
    EXPECT_FALSE(model.licence.empty()) << model.name;
    EXPECT_EQ(model.name.find('/'), std::string_view::npos) << model.name;
  }
}

TEST(Reference, ShortNamesAndRepositoriesMeanTheSameFolder) {
  const auto by_name = parse_reference("moondream2");
  const auto by_repository = parse_reference("vikhyatk/moondream2");
  ASSERT_TRUE(by_name.ok() && by_repository.ok());
  EXPECT_EQ(by_name->folder_name(), "vikhyatk/moondream2");
  EXPECT_EQ(by_repository->folder_name(), by_name->folder_name());
  EXPECT_EQ(by_repository->name(), "moondream2");
  EXPECT_EQ(by_name->revision, "2025-06-21");
}

TEST(Reference, OtherRevisionsHaveFoldersOfTheirOwn) {
  const auto pinned = parse_reference("moondream2@main");
  ASSERT_TRUE(pinned.ok());
  EXPECT_EQ(pinned->folder_name(), "vikhyatk/moondream2@main");
  EXPECT_EQ(pinned->name(), "moondream2@main");
  EXPECT_EQ(parse_reference("moondream2@2025-06-21")->folder_name(), "vikhyatk/moondream2");
  EXPECT_EQ(parse_reference("a/b@refs/pr/1")->folder_name(), "a/b@refs%2Fpr%2F1");
}

TEST(Reference, RevisionsOfAnotherVocabularyAreRefused) {
  EXPECT_EQ(parse_reference("moondream2@2025-01-09").error().code, ErrorCode::kUnsupported);
  EXPECT_TRUE(parse_reference("moondream2@2025-08-01").ok());
}

TEST(Reference, NamesThatLeadElsewhereAreRefused) {
  for (const char* name : {"", "/", "a/", "/b", "../b", "a/..", "a/b/c", ".a/b", "a/.b", "a b/c",
                           "a/b@", "a/b@../x", "a/b@/x", "a/b@x/", "a/b@x//y", "a/b\n"}) {
    EXPECT_FALSE(parse_reference(name).ok()) << name;
  }
}

}  // namespace
}  // namespace fovea::hub
