#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <gtest/gtest.h>
#include <string>
#include <system_error>

namespace fovea::testing_support {

/// A folder that belongs to this process alone and is removed when it ends: tests run side by side,
/// and several of them call their files alike.
inline const std::filesystem::path& scratch_folder() {
  struct Folder {
    Folder() {
      std::string name = (std::filesystem::path(::testing::TempDir()) / "fovea_XXXXXX").string();
      if (::mkdtemp(name.data()) == nullptr) {
        std::perror(name.c_str());
        std::abort();
      }
      path = name;
      // Tests look at it as another user, too.
      std::filesystem::permissions(path, std::filesystem::perms(0755));
    }
    ~Folder() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
    std::filesystem::path path;
  };
  static const Folder folder;
  return folder.path;
}

}  // namespace fovea::testing_support
