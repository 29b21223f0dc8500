#pragma once

#include <optional>
#include <string>

namespace fovea::cli {

/// fovea pull
struct PullArgs {
  std::string model;  ///< a short name, ORG/NAME, or one of them with @REVISION
  std::optional<std::string> models_dir;
  std::optional<std::string> endpoint;
  std::optional<std::string> token_file;
  std::optional<std::string> ca_file;
  std::optional<std::string> tokenizer;  ///< ORG/NAME
  int retries = 5;
  int retry_wait_s = 1;
  int stall_timeout_s = 30;
  bool json = false;
};

/// fovea models, fovea models rm
struct ModelsArgs {
  std::optional<std::string> remove;  ///< the model to remove; nothing: list
  std::optional<std::string> models_dir;
  bool json = false;
};

}  // namespace fovea::cli
