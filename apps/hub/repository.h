#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fovea/result.h"

#include "hub/digest.h"

namespace fovea::hub {

/// A file of a repository as the hub lists it.
struct RemoteFile {
  std::string name;
  std::optional<std::uint64_t> size;  ///< bytes
  std::optional<FileDigest> digest;
};

/// One revision of a repository.
struct Repository {
  std::string commit;             ///< 40 hexadecimal digits
  std::string licence;            ///< as the repository's card says it, printable; may be empty
  std::vector<RemoteFile> files;  ///< those with plain names in the top folder

  const RemoteFile* find(std::string_view name) const;
};

constexpr std::size_t kMaxListingBytes = std::size_t{16} << 20;
constexpr std::size_t kMaxShardIndexBytes = std::size_t{16} << 20;

/// Whether a file may lie under this name in a model's folder: letters, digits and -._ only, no dot
/// first, at most 128 bytes. Nothing in it can lead elsewhere.
bool is_plain_file_name(std::string_view name);

/// Whether the text is ORG/NAME, each of letters, digits and -._ with a letter or digit first and
/// no "..", at most 96 bytes.
bool is_repository_name(std::string_view name);

/// Whether the text may be a branch, tag or commit: letters, digits and -._/ with a letter or digit
/// first and no "..", at most 128 bytes.
bool is_revision(std::string_view name);

/// Reads the hub's answer about a revision: "sha" and "siblings" with "rfilename", "size", "blobId"
/// and "lfs". Files in deeper folders and with names that are not plain are left out. Errors
/// (kInvalidArgument) say what is wrong: no commit, a size or sum of the wrong form, two files of
/// one name, more than 10000 files.
Result<Repository> parse_repository(std::string_view json);

/// The distinct shard files that an index of shards names ("weight_map"), sorted. Errors: names
/// that are not plain, none at all, more than 1000.
Result<std::vector<std::string>> parse_shard_index(std::string_view json);

}  // namespace fovea::hub
