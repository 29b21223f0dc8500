#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>

#include "model_path.h"
#include "support/scratch_folder.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;

TEST(ModelLabel, IsTheNameThatWasGivenUnlessItIsAPath) {
  EXPECT_EQ(model_label(std::nullopt, "/usr/share/fovea/models/tiny"), "tiny");
  EXPECT_EQ(model_label("tiny", "/elsewhere/models/tiny"), "tiny");
  EXPECT_EQ(model_label("moondream2", "/models/vikhyatk/moondream2"), "moondream2");
  EXPECT_EQ(model_label("a/b@c", "/models/a/b@c"), "a/b@c");
}

TEST(ModelLabel, OfAPathIsTheFoldersName) {
  const fs::path root = testing_support::scratch_folder() / "fovea_model_label";
  const fs::path folder = root / "parrots";
  fs::create_directories(folder);
  std::ofstream(folder / "model.safetensors").put('x');
  for (const fs::path& path : {folder, folder / "", folder / ".", folder / "model.safetensors"}) {
    EXPECT_EQ(model_label(path.string(), path), "parrots") << path;
  }
  fs::remove_all(root);
}

}  // namespace
}  // namespace fovea::cli
