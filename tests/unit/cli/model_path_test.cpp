#include "model_path.h"

#include <fstream>
#include <gmock/gmock.h>
#include <map>

#include "hub/model_store.h"
#include "support/scratch_folder.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

Environment variables_of(std::map<std::string, std::string> variables) {
  return [variables = std::move(variables)](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  };
}

TEST(ModelsFolder, OptionThenOwnVariableThenDataFolderThenHome) {
  const std::map<std::string, std::string> all{
      {"FOVEA_MODELS", "/m"}, {"XDG_DATA_HOME", "/x"}, {"HOME", "/h"}};
  EXPECT_EQ(*models_folder("/o", variables_of(all)), "/o");
  EXPECT_EQ(*models_folder({}, variables_of(all)), "/m");
  EXPECT_EQ(*models_folder({}, variables_of({{"XDG_DATA_HOME", "/x"}, {"HOME", "/h"}})),
            "/x/fovea/models");
  EXPECT_EQ(*models_folder({}, variables_of({{"XDG_DATA_HOME", "x"}, {"HOME", "/h"}})),
            "/h/.local/share/fovea/models");
  EXPECT_FALSE(models_folder({}, variables_of({})).ok());
}

class PulledModel : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    root_ = testing_support::scratch_folder() / (std::string("fovea_pulled_model_") + test->name());
    fs::remove_all(root_);
    const hub::ModelStore store(root_);
    const auto model = *hub::parse_reference("moondream2");
    ASSERT_TRUE(hub::make_folder(store.incoming(model)).ok());
    ASSERT_TRUE(store
                    .install(model, {.repository = model.repository,
                                     .revision = model.revision,
                                     .commit = {},
                                     .tokenizer_repository = {},
                                     .tokenizer_commit = {},
                                     .licence = {},
                                     .files = {}})
                    .ok());
  }
  void TearDown() override { fs::remove_all(root_); }

  Result<fs::path> find(const std::string& name) const {
    return find_model(name, {.executable = "/nowhere/fovea",
                             .models_dir = std::nullopt,
                             .environment = variables_of({{"FOVEA_MODELS", root_.string()}})});
  }

  fs::path root_;
};

TEST_F(PulledModel, IsFoundByEitherOfItsNames) {
  EXPECT_EQ(*find("moondream2"), root_ / "vikhyatk/moondream2");
  EXPECT_EQ(*find("vikhyatk/moondream2"), root_ / "vikhyatk/moondream2");
}

TEST_F(PulledModel, ThatIsNotThereNamesTheCommand) {
  EXPECT_THAT(find("moondream3").error().message, HasSubstr("fovea pull moondream3"));
  EXPECT_THAT(find("a/b@c").error().message, HasSubstr("fovea pull a/b@c"));
}

TEST_F(PulledModel, PathsStayPaths) {
  EXPECT_EQ(*find(root_), root_);
  EXPECT_EQ(find("./missing").error().message, "there is no model at ./missing");
  EXPECT_EQ(find("missing").error().message, "there is no model at missing");
}

}  // namespace
}  // namespace fovea::cli
