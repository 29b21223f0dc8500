#include "hub/file_choice.h"

#include <array>

#include "base/error.h"

namespace fovea::hub {
namespace {

constexpr std::string_view kWeights = "model.safetensors";
constexpr std::string_view kShardIndex = "model.safetensors.index.json";
constexpr std::string_view kConfig = "config.json";

// Weights of a form that the engine does not read; empty when there is none.
std::string_view foreign_weights(const Repository& repository) {
  constexpr std::array<std::string_view, 6> kEndings{".pt",   ".pth",  ".bin",
                                                     ".gguf", ".onnx", ".gz"};
  for (const RemoteFile& file : repository.files) {
    for (const std::string_view ending : kEndings) {
      if (file.name.ends_with(ending)) return file.name;
    }
  }
  return {};
}

}  // namespace

Result<FileChoice> choose_weights(const Repository& repository, const std::string& name) {
  FileChoice choice;
  if (repository.find(kConfig) != nullptr) choice.others.emplace_back(kConfig);
  if (repository.find(kWeights) != nullptr) {
    choice.weights.emplace_back(kWeights);
    return choice;
  }
  if (repository.find(kShardIndex) != nullptr) {
    choice.shard_index = kShardIndex;
    return choice;
  }
  for (const RemoteFile& file : repository.files) {
    if (file.name.ends_with(".safetensors")) choice.weights.push_back(file.name);
  }
  if (choice.weights.size() == 1) return choice;
  if (choice.weights.size() > 1) {
    return error(ErrorCode::kUnsupported,
                 "{} has {} files of weights and no model.safetensors.index.json that joins them",
                 name, choice.weights.size());
  }
  const std::string_view foreign = foreign_weights(repository);
  return error(ErrorCode::kUnsupported, "{} has no safetensors weights, which Fovea reads{}", name,
               foreign.empty() ? std::string() : fmt::format(" (it has {})", foreign));
}

Result<std::vector<std::string>> choose_tokenizer(const Repository& repository,
                                                  const std::string& name) {
  if (repository.find("tokenizer.json") != nullptr)
    return std::vector<std::string>{"tokenizer.json"};
  if (repository.find("vocab.json") != nullptr && repository.find("merges.txt") != nullptr) {
    std::vector<std::string> files{"vocab.json", "merges.txt"};
    if (repository.find("added_tokens.json") != nullptr) files.emplace_back("added_tokens.json");
    return files;
  }
  return error(ErrorCode::kNotFound,
               "{} has no tokenizer.json; name a repository that has the right one with "
               "--tokenizer (moondream/starmie-v1 for models since June 2025)",
               name);
}

}  // namespace fovea::hub
