#pragma once

#include <cstdint>
#include <filesystem>
#include <istream>
#include <optional>
#include <string>
#include <vector>

#include "fovea/result.h"

#include "args.h"

namespace fovea::cli {

/// A picture file of a batch.
struct PictureFile {
  std::string path;  ///< as it was named; what results and messages call it
  /// Its place below the folder that holds all pictures of the batch: "summer/a.jpg". Unique.
  std::string name;
  std::filesystem::path real;  ///< absolute, without links; empty where there is a problem
  std::uint64_t size_bytes = 0;
  std::int64_t modified_ms = 0;  ///< since 1970
  std::optional<Error> problem;  ///< why it cannot be read: a list named a file that is not there
};

/// The pictures of a batch, each once, in the order of the arguments; those of a folder by name.
struct BatchPictures {
  std::vector<PictureFile> files;
  int num_repeated = 0;         ///< named a second time, and left out
  std::vector<Error> problems;  ///< folders within folders that could not be read
};

/// Finds the pictures that the arguments name. A folder stands for its files with the endings of
/// pictures, hidden ones and the batch's own output folders left out. `in` is read for the list
/// "-". Errors: a PATH or list that is not there or cannot be read, a pattern without a match, no
/// picture at all.
Result<BatchPictures> find_pictures(const BatchArgs& args, std::istream& in);

}  // namespace fovea::cli
