#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fovea/result.h"

#include "io/checkpoint.h"

namespace fovea {

/// Finds a checkpoint's tensors by one name each, whichever way they are spelled.
///
/// The name asked for is the current one without prefix ("text.blocks.0.attn.qkv.weight").
/// Checkpoints spell it so, or with "model." before it, or in the older style
/// ("text_model.transformer.h.0.mixer.Wqkv.weight").
class TensorTable {
 public:
  /// The checkpoint must outlive the table.
  explicit TensorTable(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  struct Found {
    const TensorEntry* entry = nullptr;  ///< null: the checkpoint has no such tensor
    bool legacy_spelling = false;        ///< older files store the Fourier matrices transposed
  };

  /// Error: kInvalidArgument when two spellings of one tensor are both there.
  Result<Found> find(std::string_view name) const;

  /// find(), but absence is an error that lists the spellings tried.
  Result<Found> require(std::string_view name) const;

  /// Whether any spelling is there.
  bool contains(std::string_view name) const;

  /// Whether the file as a whole uses the older spelling.
  bool is_legacy() const;

  const Checkpoint& checkpoint() const { return checkpoint_; }

 private:
  const Checkpoint& checkpoint_;
};

/// The older spellings of a current name; experts have two. Empty for names that never had one.
std::vector<std::string> legacy_spellings(std::string_view name);

}  // namespace fovea
