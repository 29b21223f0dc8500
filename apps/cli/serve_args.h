#pragma once

#include <filesystem>
#include <optional>

#include "args.h"
#include "server/server_options.h"

namespace fovea::cli {

enum class LogMode { kNone, kJson, kJsonWithContent };

/// `fovea serve`.
struct ServeArgs {
  ModelArgs model;
  server::ServerOptions server;
  std::optional<std::filesystem::path> api_key_file;
  LogMode log = LogMode::kNone;
};

}  // namespace fovea::cli
