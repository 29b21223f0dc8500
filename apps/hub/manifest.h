#pragma once

#include <filesystem>
#include <optional>

#include "hub/model_store.h"

namespace fovea::hub {

/// The manifest in a model's folder. Nothing when there is none, or when it does not describe what
/// lies there: a file is missing or has another size.
std::optional<Manifest> read_manifest(const std::filesystem::path& folder);

/// Writes it; the bytes are on the disk when this returns. Error: kIo.
Status write_manifest(const std::filesystem::path& folder, const Manifest& manifest);

}  // namespace fovea::hub
