#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "fovea/result.h"

#include "hub/known_models.h"
#include "hub/model_store.h"
#include "hub/retry.h"
#include "hub/transport.h"

namespace fovea::hub {

constexpr std::string_view kDefaultEndpoint = "https://huggingface.co";

/// What is pulled, from where, and on which terms.
struct PullOptions {
  ModelReference model;
  std::string endpoint{kDefaultEndpoint};  ///< a hub, or a mirror of one
  std::string token;                       ///< for private and gated models; may be empty
  std::string tokenizer_repository;        ///< instead of the model's usual one; may be empty
  RetryPolicy retries;
  /// Looks at the complete folder before it takes the model's name: whether the engine would load
  /// it. May be empty.
  std::function<Status(const std::filesystem::path& folder)> check;
};

struct PullResult {
  std::filesystem::path folder;
  Manifest manifest;
  bool was_there = false;      ///< nothing had to be done
  std::uint64_t received = 0;  ///< bytes that came over the network
};

/// Brings a model into the store: asks the hub what there is, chooses the files that the engine
/// reads, fetches them into incoming(), checks them, and installs the folder. Waits while another
/// process pulls the same model. Errors say what is missing or wrong; what was gathered stays for
/// the next try.
Result<PullResult> pull(Transport& transport, const ModelStore& store, const PullOptions& options,
                        const PullEvents& events);

}  // namespace fovea::hub
