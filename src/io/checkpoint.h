#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "fovea/result.h"

#include "io/safetensors.h"

namespace fovea {

/// All tensors of a checkpoint, from one file or from several shards, mapped and not copied. Names
/// lose every
/// "._orig_mod" (what torch.compile adds) and are otherwise as the files spell them. Move-only,
/// immutable, usable from several threads.
class Checkpoint {
 public:
  /// `path` is a .safetensors file, an index of shards (*.json with a "weight_map"), or a folder
  /// that holds model.safetensors, model.safetensors.index.json or exactly one *.safetensors,
  /// looked for in this order. Errors name the file or tensor: kNotFound for a path, shard or
  /// listed tensor that is absent, kInvalidArgument for malformed files and for a tensor that two
  /// shards hold, kUnsupported for PyTorch pickles.
  static Result<Checkpoint> open(const std::filesystem::path& path);

  /// The tensor of this name, or null. Valid as long as the checkpoint, also after a move.
  const TensorEntry* find(std::string_view name) const;

  /// All tensors, sorted by name.
  const std::vector<TensorEntry>& tensors() const { return tensors_; }

  /// Sum of the tensors' bytes.
  std::size_t total_bytes() const;

  /// Says that `bytes` (of a tensor, or a part) are not needed again soon; see MappedFile::release.
  void release(std::span<const std::byte> bytes) const;

  /// Where the checkpoint lies: its config.json and tokenizer are looked for here.
  const std::filesystem::path& folder() const { return folder_; }

 private:
  Checkpoint() = default;
  Status add_file(const std::filesystem::path& path);
  Status add_index(const std::filesystem::path& path);
  Status sort_and_check();

  std::filesystem::path folder_;
  std::vector<SafetensorsFile> files_;
  std::vector<TensorEntry> tensors_;  // sorted by name; bytes belong to files_
};

}  // namespace fovea
