#include "batch_pictures.h"

#include <filesystem>
#include <fstream>
#include <gmock/gmock.h>
#include <sstream>
#include <unistd.h>

#include "path_list.h"
#include "support/scratch_folder.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class Pictures : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = testing_support::scratch_folder() / (std::string("fovea_pictures_") + test->name());
    fs::remove_all(folder_);
    for (const char* name : {"in/b.jpg", "in/a.PNG", "in/notes.txt", "in/.hidden.jpg",
                             "in/sub/c.webp", "in/sub/deep/d.gif", "more/e.jpeg"}) {
      fs::create_directories((folder_ / name).parent_path());
      std::ofstream(folder_ / name) << name;
    }
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string at(const std::string& name) const { return folder_ / name; }
  Result<BatchPictures> find(const BatchArgs& args) { return find_pictures(args, in_); }

  // Paths below the test's folder.
  std::vector<std::string> found(const BatchArgs& args) {
    const Result<BatchPictures> pictures = find(args);
    if (!pictures.ok()) return {pictures.error().message};
    std::vector<std::string> paths;
    for (const PictureFile& file : pictures->files) {
      paths.push_back(fs::path(file.path).lexically_relative(folder_));
    }
    return paths;
  }
  std::vector<std::string> names(const BatchArgs& args) {
    std::vector<std::string> names;
    const Result<BatchPictures> pictures = find(args);
    for (const PictureFile& file : pictures->files) names.push_back(file.name);
    return names;
  }

  fs::path folder_;
  std::istringstream in_;
};

TEST_F(Pictures, AFolderStandsForItsPicturesInOrder) {
  EXPECT_THAT(found({.paths = {at("in")}}), ElementsAre("in/a.PNG", "in/b.jpg"));
  EXPECT_THAT(found({.paths = {at("in/")}}), ElementsAre("in/a.PNG", "in/b.jpg"));
}

TEST_F(Pictures, RecursiveGoesIntoFolders) {
  EXPECT_THAT(found({.paths = {at("in")}, .recursive = true}),
              ElementsAre("in/a.PNG", "in/b.jpg", "in/sub/c.webp", "in/sub/deep/d.gif"));
}

TEST_F(Pictures, ACircleOfLinksEnds) {
  fs::create_directory_symlink(folder_ / "in", folder_ / "in/sub/up");

  EXPECT_EQ(found({.paths = {at("in")}, .recursive = true}).size(), 4U);
}

TEST_F(Pictures, AFileIsTakenWhateverItsName) {
  EXPECT_THAT(found({.paths = {at("in/notes.txt"), at("in/.hidden.jpg")}}),
              ElementsAre("in/notes.txt", "in/.hidden.jpg"));
}

TEST_F(Pictures, PatternsAreMatched) {
  EXPECT_THAT(found({.paths = {at("*/[be].*")}}), ElementsAre("in/b.jpg", "more/e.jpeg"));
  EXPECT_THAT(found({.paths = {at("in/*.bmp")}}), ElementsAre(HasSubstr("nothing matches")));
}

TEST_F(Pictures, ANameWithAStarIsANameFirst) {
  std::ofstream(folder_ / "in/*.jpg") << "star";

  EXPECT_THAT(found({.paths = {at("in/*.jpg")}}), ElementsAre("in/*.jpg"));
}

TEST_F(Pictures, EachIsTakenOnce) {
  fs::create_symlink(folder_ / "in/b.jpg", folder_ / "more/f.jpg");

  const Result<BatchPictures> pictures =
      find({.paths = {at("in/b.jpg"), at("in"), at("more"), at("in/../in/b.jpg")}});

  EXPECT_EQ(pictures->files.size(), 3U);
  EXPECT_EQ(pictures->num_repeated, 3);
}

TEST_F(Pictures, ListsNameOnePathALine) {
  std::ofstream(folder_ / "list.txt") << at("in/b.jpg") << "\r\n\n"
                                      << at("none.jpg") << "\n"
                                      << at("more");
  const Result<BatchPictures> pictures = find({.paths = {"@" + at("list.txt")}});

  ASSERT_EQ(pictures->files.size(), 3U);
  EXPECT_EQ(pictures->files[0].path, at("in/b.jpg"));
  EXPECT_THAT(pictures->files[1].problem->message, HasSubstr("No such file"));
  EXPECT_EQ(pictures->files[2].path, at("more/e.jpeg"));
}

TEST_F(Pictures, StandardInputIsAList) {
  in_.str(at("in/b.jpg") + '\0' + at("more/e.jpeg") + '\0');

  EXPECT_THAT(found({.lists = {"-"}}), ElementsAre("in/b.jpg", "more/e.jpeg"));
}

TEST_F(Pictures, WhatAnArgumentNamesMustBeThere) {
  EXPECT_THAT(found({.paths = {at("inn")}}), ElementsAre(HasSubstr("No such file")));
  EXPECT_THAT(found({.paths = {"@" + at("inn")}}), ElementsAre(HasSubstr("No such file")));
}

TEST_F(Pictures, NothingFoundIsAnErrorThatTellsWhatIsLookedFor) {
  fs::create_directory(folder_ / "empty");

  EXPECT_THAT(found({.paths = {at("empty")}}), ElementsAre(HasSubstr(".jpg")));
}

TEST_F(Pictures, NamesAreBelowTheFolderThatHoldsAll) {
  EXPECT_THAT(names({.paths = {at("in")}, .recursive = true}),
              ElementsAre("a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.gif"));
  EXPECT_THAT(names({.paths = {at("in"), at("more")}}),
              ElementsAre("in/a.PNG", "in/b.jpg", "more/e.jpeg"));
  EXPECT_THAT(names({.paths = {at("in/b.jpg")}}), ElementsAre("b.jpg"));
}

TEST_F(Pictures, OutputFoldersAreNoInput) {
  EXPECT_THAT(found({.paths = {at("in")}, .recursive = true, .annotate = folder_ / "in/sub"}),
              ElementsAre("in/a.PNG", "in/b.jpg"));
}

TEST_F(Pictures, WhatIsNoFileAndWhatIsNoUtf8IsABadPicture) {
  std::ofstream(folder_ / "more/\xff.jpg") << "x";

  const Result<BatchPictures> pictures = find({.paths = {"/dev/null", at("more")}});

  EXPECT_THAT(pictures->files.at(0).problem->message, HasSubstr("neither a file nor a folder"));
  EXPECT_THAT(pictures->files.at(2).problem->message, HasSubstr("not UTF-8"));
  EXPECT_THAT(pictures->files.at(2).path, HasSubstr("\uFFFD"));
}

TEST(SplitList, KeepsSpacesAndLastLine) {
  EXPECT_THAT(split_list(" a b \nc"), ElementsAre(" a b ", "c"));
  EXPECT_THAT(split_list(""), IsEmpty());
  EXPECT_THAT(split_list(std::string_view("a\nb\0c", 5)), ElementsAre("a\nb", "c"));
}

}  // namespace
}  // namespace fovea::cli
