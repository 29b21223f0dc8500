#include "io/folder.h"

#include <algorithm>
#include <system_error>

#include "base/error.h"

namespace fovea {

namespace fs = std::filesystem;

bool file_exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

Result<std::vector<fs::path>> list_folder(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code failure;
  for (fs::directory_iterator it(folder, failure), end; !failure && it != end;
       it.increment(failure)) {
    paths.push_back(it->path());
  }
  if (failure)
    return error(ErrorCode::kIo, "cannot list {}: {}", folder.string(), failure.message());
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace fovea
