#pragma once

#include <string>
#include <vector>

#include "fovea/result.h"

#include "hub/repository.h"

namespace fovea::hub {

/// The files of a repository that the engine reads.
struct FileChoice {
  std::vector<std::string> weights;  ///< empty when an index names them
  std::string shard_index;           ///< empty when the weights are one file
  std::vector<std::string> others;   ///< the configuration, where there is one
};

/// Weights and configuration: model.safetensors, or model.safetensors.index.json, or the only
/// *.safetensors, in this order, as the loader looks for them. Error: kUnsupported, with what the
/// repository has instead.
Result<FileChoice> choose_weights(const Repository& repository, const std::string& name);

/// The tokenizer: tokenizer.json, or vocab.json with merges.txt. Error: kNotFound.
Result<std::vector<std::string>> choose_tokenizer(const Repository& repository,
                                                  const std::string& name);

}  // namespace fovea::hub
