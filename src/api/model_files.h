#pragma once

#include <filesystem>

#include "fovea/result.h"

#include "io/checkpoint.h"
#include "io/tokenizer.h"
#include "model/config.h"

namespace fovea {

/// The files of a model, opened and found to belong together; no weight has been read.
struct ModelFiles {
  Checkpoint checkpoint;
  ModelConfig config;
  Tokenizer tokenizer;
};

/// Opens the checkpoint at `path` with its configuration and tokenizer. Errors name the file or
/// tensor that is wrong, and a tokenizer that does not fit.
Result<ModelFiles> open_model(const std::filesystem::path& path);

}  // namespace fovea
