#pragma once

#include <span>
#include <string>
#include <string_view>

#include "fovea/result.h"

namespace fovea::hub {

/// A published model that has a short name.
struct KnownModel {
  std::string_view name;        ///< what a person types
  std::string_view repository;  ///< ORG/NAME on the hub
  std::string_view revision;    ///< what is pulled when no other is named
  /// Where its tokenizer lies; empty: beside the weights. The one beside the weights of Moondream 2
  /// is an older model's.
  std::string_view tokenizer_repository;
  /// Revisions that are dates must not be older: their vocabulary is another. Empty: no limit.
  std::string_view oldest_revision;
  std::string_view licence;  ///< a note for people; the makers' own text counts
  std::string_view about;    ///< one line
};

std::span<const KnownModel> known_models();

/// The model of this short name or repository, or null.
const KnownModel* find_known_model(std::string_view name_or_repository);

/// Which model is meant, and how to come by it.
struct ModelReference {
  std::string repository;           ///< ORG/NAME
  std::string revision;             ///< a branch, tag or commit
  bool is_default_revision = true;  ///< no other revision was asked for
  const KnownModel* known = nullptr;

  /// What a person types to name it: "moondream2", "ORG/NAME", "ORG/NAME@REVISION".
  std::string name() const;
  /// Its folder below the models' folder: "ORG/NAME" or "ORG/NAME@REVISION".
  std::string folder_name() const;
};

/// Reads NAME, ORG/NAME, or one of them with @REVISION. Errors: kNotFound for a short name that is
/// not known, with those that are; kUnsupported for models and revisions that this version cannot
/// load; kInvalidArgument for anything else.
Result<ModelReference> parse_reference(std::string_view text);

}  // namespace fovea::hub
