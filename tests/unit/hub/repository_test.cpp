#include "hub/repository.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "hub/file_choice.h"

namespace fovea::hub {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kCommit = "0123456789abcdef0123456789abcdef01234567";
const std::string kSha256(64, 'a');
const std::string kBlob(40, 'b');

Result<Repository> parse(const std::string& siblings) {
  return parse_repository(fmt::format(R"({{"sha":"{}","siblings":[{}]}})", kCommit, siblings));
}

Repository with_files(std::initializer_list<const char*> names) {
  Repository repository;
  for (const char* name : names) repository.files.push_back({.name = name});
  return repository;
}

TEST(Repository, LargeFilesHaveTheirSha256AndSmallOnesTheirBlobId) {
  const auto repository = parse(fmt::format(
      R"({{"rfilename":"a.json","size":5,"blobId":"{0}"}},)"
      R"({{"rfilename":"b.bin","size":1,"blobId":"{0}","lfs":{{"sha256":"{1}","size":900}}}})",
      kBlob, kSha256));

  ASSERT_TRUE(repository.ok()) << repository.error().message;
  EXPECT_EQ(repository->commit, kCommit);
  EXPECT_EQ(repository->find("a.json")->digest, (FileDigest{FileDigest::Kind::kGitBlob, kBlob}));
  EXPECT_EQ(repository->find("b.bin")->digest, (FileDigest{FileDigest::Kind::kSha256, kSha256}));
  EXPECT_EQ(repository->find("b.bin")->size, 900U);
}

TEST(Repository, NamesThatLeadElsewhereAreNotThere) {
  const auto repository =
      parse(R"({"rfilename":"../a"},{"rfilename":"/a"},{"rfilename":"b/a"},{"rfilename":".a"},)"
            R"({"rfilename":"a\\b"},{"rfilename":"a\u0000b"},{"rfilename":7},{"rfilename":"a"})");

  ASSERT_TRUE(repository.ok());
  ASSERT_EQ(repository->files.size(), 1U);
  EXPECT_EQ(repository->files[0].name, "a");
}

TEST(Repository, RefusesWhatMakesNoSense) {
  for (const char* siblings :
       {R"({"rfilename":"a","size":-1})", R"({"rfilename":"a","size":1.5})",
        R"({"rfilename":"a","blobId":"zz"})", R"({"rfilename":"a","lfs":{"sha256":"bbbb"}})",
        R"({"rfilename":"a"},{"rfilename":"a"})"}) {
    EXPECT_FALSE(parse(siblings).ok()) << siblings;
  }
  EXPECT_FALSE(parse_repository(R"({"siblings":[]})").ok());
  EXPECT_FALSE(parse_repository(fmt::format(R"({{"sha":"{}"}})", kCommit)).ok());
}

TEST(Repository, LicenceIsTheCardsWordAndPrintable) {
  const auto licence = [](const std::string& rest) {
    const auto repository =
        parse_repository(fmt::format(R"({{"sha":"{}","siblings":[],{}}})", kCommit, rest));
    return repository.ok() ? repository->licence : "error";
  };
  EXPECT_EQ(licence(R"("cardData":{"license":"apache-2.0"})"), "apache-2.0");
  EXPECT_EQ(licence(R"("cardData":{"license":"other","license_name":"bsl-1.1"})"), "bsl-1.1");
  EXPECT_EQ(licence(R"("tags":["x","license:mit"])"), "mit");
  EXPECT_EQ(licence(R"("cardData":{"license":"\u001b[2J"})"), "");
}

TEST(ShardIndex, NamesEachShardOnce) {
  const auto shards = parse_shard_index(R"({"weight_map":{"x":"b.st","y":"a.st","z":"b.st"}})");
  ASSERT_TRUE(shards.ok());
  EXPECT_THAT(*shards, ElementsAre("a.st", "b.st"));
  for (const char* index : {R"({"weight_map":{"x":"../a"}})", R"({"weight_map":{}})", "{}",
                            R"({"weight_map":{"x":1}})"}) {
    EXPECT_FALSE(parse_shard_index(index).ok()) << index;
  }
}

TEST(FileChoice, TakesWhatTheLoaderWouldTake) {
  const auto whole = choose_weights(with_files({"model.safetensors", "x.safetensors"}), "r");
  EXPECT_THAT(whole->weights, ElementsAre("model.safetensors"));
  const auto shards = choose_weights(
      with_files({"config.json", "model.safetensors.index.json", "a.safetensors"}), "r");
  EXPECT_EQ(shards->shard_index, "model.safetensors.index.json");
  EXPECT_THAT(shards->others, ElementsAre("config.json"));
  EXPECT_THAT(choose_weights(with_files({"only.safetensors"}), "r")->weights,
              ElementsAre("only.safetensors"));
  EXPECT_FALSE(choose_weights(with_files({"a.safetensors", "b.safetensors"}), "r").ok());
  EXPECT_THAT(choose_weights(with_files({"model_fp8.pt"}), "r").error().message,
              HasSubstr("model_fp8.pt"));
}

TEST(FileChoice, TakesEitherFormOfATokenizer) {
  EXPECT_THAT(*choose_tokenizer(with_files({"vocab.json", "merges.txt", "tokenizer.json"}), "r"),
              ElementsAre("tokenizer.json"));
  EXPECT_THAT(*choose_tokenizer(with_files({"vocab.json", "merges.txt"}), "r"),
              ElementsAre("vocab.json", "merges.txt"));
  EXPECT_FALSE(choose_tokenizer(with_files({"vocab.json"}), "r").ok());
}

}  // namespace
}  // namespace fovea::hub
