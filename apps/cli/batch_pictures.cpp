#include "batch_pictures.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <fmt/format.h>
#include <glob.h>
#include <string_view>
#include <sys/stat.h>
#include <system_error>
#include <unordered_set>
#include <utility>

#include "files.h"
#include "path_list.h"
#include "utf8.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxListBytes = std::size_t{256} << 20;
constexpr std::array<std::string_view, 7> kEndings = {".jpg", ".jpeg", ".jpe", ".jfif",
                                                      ".png", ".webp", ".gif"};

Error cannot_read(const fs::path& path, int error_number) {
  return Error{error_number == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
               fmt::format("cannot open {}: {}", path.string(),
                           std::system_category().message(error_number))};
}

bool is_picture_name(const fs::path& path) {
  std::string ending = path.extension().string();
  std::ranges::transform(ending, ending.begin(), [](unsigned char c) { return std::tolower(c); });
  return std::ranges::find(kEndings, ending) != kEndings.end();
}

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

fs::path absolute(const fs::path& path) {
  std::error_code error;
  fs::path result = fs::absolute(path, error).lexically_normal();
  return result.has_filename() ? result : result.parent_path();  // "in/" is "in"
}

fs::path real_path(const fs::path& path) {
  std::error_code error;
  fs::path real = fs::canonical(path, error);
  return error ? fs::path() : real;
}

// The deepest folder that holds both.
fs::path common_folder(const fs::path& a, const fs::path& b) {
  fs::path common;
  for (auto i = a.begin(), j = b.begin(); i != a.end() && j != b.end() && *i == *j; ++i, ++j) {
    common /= *i;
  }
  return common;
}

class Finder {
 public:
  explicit Finder(const BatchArgs& args) : recursive_(args.recursive) {
    for (const auto& folder : {args.annotate, args.yolo}) {
      const fs::path real = folder ? real_path(*folder) : fs::path();
      if (!real.empty()) outputs_.insert(real.string());
    }
  }

  // A word of the command line: it must exist. A name with a star in it is tried as a name first.
  Status add_argument(const std::string& word) {
    struct stat status = {};
    if (::stat(word.c_str(), &status) == 0) {
      add(word, status);
      return {};
    }
    const int failure = errno;
    if (word.find_first_of("*?[") == std::string::npos) return cannot_read(word, failure);
    return add_pattern(word);
  }

  // A line of a list: what is not there is one bad picture among many.
  void add_line(const std::string& line) {
    struct stat status = {};
    if (::stat(line.c_str(), &status) == 0) {
      add(line, status);
      return;
    }
    PictureFile file;
    file.problem = cannot_read(line, errno);
    keep(line, std::move(file), line);
  }

  BatchPictures finish() {
    for (PictureFile& file : pictures_.files) {
      file.name = absolute(file.path).lexically_relative(base_).string();
    }
    return std::move(pictures_);
  }

 private:
  Status add_pattern(const std::string& pattern) {
    glob_t found = {};
    const int outcome = ::glob(pattern.c_str(), 0, nullptr, &found);
    std::vector<std::string> names(found.gl_pathv, found.gl_pathv + found.gl_pathc);
    ::globfree(&found);
    if (outcome != 0 && outcome != GLOB_NOMATCH) return cannot_read(pattern, EIO);
    if (names.empty()) {
      return Error{ErrorCode::kNotFound, fmt::format("nothing matches {}", pattern)};
    }
    for (const std::string& name : names) add_line(name);
    return {};
  }

  void add(const std::string& path, const struct stat& status) {
    if (S_ISDIR(status.st_mode)) {
      widen_base(absolute(path));
      add_folder(path, /*is_named=*/true);
    } else {
      widen_base(absolute(path).parent_path());
      add_file(path, status);
    }
  }

  void add_file(const fs::path& path, const struct stat& status) {
    PictureFile file;
    file.size_bytes = static_cast<std::uint64_t>(status.st_size);
    file.modified_ms =
        std::int64_t{status.st_mtim.tv_sec} * 1000 + status.st_mtim.tv_nsec / 1'000'000;
    if (!S_ISREG(status.st_mode)) {
      file.problem = Error{ErrorCode::kInvalidArgument,
                           fmt::format("{} is neither a file nor a folder", path.string())};
    } else if (replace_bad_utf8(path.string()) != path.string()) {
      file.problem =
          Error{ErrorCode::kInvalidArgument,
                fmt::format("the name {} is not UTF-8", replace_bad_utf8(path.string()))};
    }
    file.real = real_path(path);
    const std::string identity = file.real.string();
    keep(path, std::move(file), identity);
  }

  void add_folder(const fs::path& folder, bool is_named) {
    const fs::path real = real_path(folder);
    if (!is_named && outputs_.contains(real.string())) return;
    if (!folders_.insert(real.string()).second) return;  // links may lead in a circle
    std::error_code error;
    std::vector<fs::path> entries;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
      if (!is_hidden(entry->path())) entries.push_back(entry->path());
    }
    if (error) pictures_.problems.push_back(cannot_read(folder, error.value()));
    std::ranges::sort(entries);
    for (const fs::path& entry : entries) {
      struct stat status = {};
      if (::stat(entry.c_str(), &status) != 0) {
        if (is_picture_name(entry)) add_line(entry.string());  // a link that leads nowhere
      } else if (S_ISDIR(status.st_mode)) {
        if (recursive_) add_folder(entry, /*is_named=*/false);
      } else if (is_picture_name(entry)) {
        add_file(entry, status);
      }
    }
  }

  void keep(const fs::path& path, PictureFile file, const std::string& identity) {
    if (!seen_.insert(identity).second) {
      ++pictures_.num_repeated;
      return;
    }
    file.path = replace_bad_utf8(path.lexically_normal().string());
    pictures_.files.push_back(std::move(file));
  }

  void widen_base(const fs::path& folder) {
    base_ = base_.empty() ? folder : common_folder(base_, folder);
  }

  bool recursive_;
  fs::path base_;  // holds everything that was named
  std::unordered_set<std::string> outputs_, folders_, seen_;
  BatchPictures pictures_;
};

Result<std::vector<std::string>> read_list(const std::string& list, std::istream& in) {
  Result<std::vector<std::byte>> bytes =
      list == "-" ? read_stream(in, kMaxListBytes) : read_file(list, kMaxListBytes);
  if (!bytes.ok()) return std::move(bytes).error();
  return split_list({reinterpret_cast<const char*>(bytes->data()), bytes->size()});
}

}  // namespace

Result<BatchPictures> find_pictures(const BatchArgs& args, std::istream& in) {
  Finder finder(args);
  std::vector<std::string> lists;
  for (const std::string& word : args.paths) {
    if (word.starts_with('@')) {
      lists.push_back(word.substr(1));
    } else if (Status status = finder.add_argument(word); !status.ok()) {
      return status.error();
    }
  }
  lists.insert(lists.end(), args.lists.begin(), args.lists.end());
  for (const std::string& list : lists) {
    Result<std::vector<std::string>> lines = read_list(list, in);
    if (!lines.ok()) return std::move(lines).error();
    for (const std::string& line : *lines) finder.add_line(line);
  }
  BatchPictures pictures = finder.finish();
  if (pictures.files.empty() && pictures.problems.empty()) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("no picture found: files ending in {} are looked for{}",
                             fmt::join(kEndings, " "),
                             args.recursive ? "" : ", with --recursive also in folders within")};
  }
  return pictures;
}

}  // namespace fovea::cli
