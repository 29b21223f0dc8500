#pragma once

#include <filesystem>
#include <vector>

#include "fovea/result.h"

namespace fovea {

/// Whether there is something at `path`; what cannot be looked at counts as absent.
bool file_exists(const std::filesystem::path& path);

/// The paths in `folder`, sorted. Error: kIo.
Result<std::vector<std::filesystem::path>> list_folder(const std::filesystem::path& folder);

}  // namespace fovea
