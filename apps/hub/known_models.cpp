#include "hub/known_models.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "hub/repository.h"

namespace fovea::hub {
namespace {

constexpr std::string_view kStarmie = "moondream/starmie-v1";
constexpr std::string_view kMainBranch = "main";

// Everything that is known about published models, in one place.
constexpr std::array<KnownModel, 3> kKnownModels{{
    {.name = "moondream2",
     .repository = "vikhyatk/moondream2",
     .revision = "2025-06-21",
     .tokenizer_repository = kStarmie,
     .oldest_revision = "2025-06-21",
     .licence = "Apache-2.0",
     .about = "Moondream 2, 1.9 billion parameters, 3.9 GB"},
    {.name = "moondream3",
     .repository = "moondream/moondream3.1-9B-A2B",
     .revision = kMainBranch,
     .tokenizer_repository = kStarmie,
     .oldest_revision = "",
     .licence = "its makers' own: read it on the model's page",
     .about = "Moondream 3.1, 9 billion parameters of which 2 at work, FP8 experts, 10.5 GB"},
    {.name = "moondream3-preview",
     .repository = "moondream/moondream3-preview",
     .revision = kMainBranch,
     .tokenizer_repository = kStarmie,
     .oldest_revision = "",
     .licence =
         "its makers' own, with limits on offering it to others: read it on the model's page",
     .about = "Moondream 3 Preview, 9 billion parameters of which 2 at work, bf16, 18.5 GB"},
}};

// Names that people will try, and why they get nothing.
constexpr std::string_view kHalfBillion = "moondream-0.5b";
constexpr std::string_view kHalfBillionNote =
    "Moondream 0.5B is published as an ONNX archive only, which Fovea does not read; a repository "
    "with its safetensors weights can be pulled as ORG/NAME";

// YYYY-MM-DD, as the revisions of Moondream 2 are called.
bool is_date(std::string_view text) {
  constexpr std::string_view kForm = "0000-00-00";
  return text.size() == kForm.size() && std::ranges::equal(text, kForm, [](char c, char form) {
           return form == '-' ? c == '-' : c >= '0' && c <= '9';
         });
}

std::string all_names() {
  std::string names;
  for (const KnownModel& model : kKnownModels) {
    names += (names.empty() ? "" : ", ") + std::string(model.name);
  }
  return names;
}

}  // namespace

std::span<const KnownModel> known_models() { return kKnownModels; }

const KnownModel* find_known_model(std::string_view name) {
  const auto found = std::ranges::find_if(kKnownModels, [name](const KnownModel& model) {
    return model.name == name || model.repository == name;
  });
  return found == kKnownModels.end() ? nullptr : found;
}

std::string ModelReference::name() const {
  const std::string base = known != nullptr ? std::string(known->name) : repository;
  return is_default_revision ? base : base + "@" + revision;
}

std::string ModelReference::folder_name() const {
  if (is_default_revision) return repository;
  std::string folder = repository + "@";
  for (const char c : revision) folder += c == '/' ? std::string("%2F") : std::string(1, c);
  return folder;
}

Result<ModelReference> parse_reference(std::string_view text) {
  const std::size_t at = text.find('@');
  const std::string_view name = text.substr(0, at);
  ModelReference reference;
  reference.known = find_known_model(name);
  if (reference.known == nullptr && !is_repository_name(name)) {
    if (name == kHalfBillion) return error(ErrorCode::kUnsupported, "{}", kHalfBillionNote);
    if (name.find('/') != std::string_view::npos) {
      return invalid_argument("'{}' is no name of a repository: ORG/NAME is wanted", name);
    }
    return error(ErrorCode::kNotFound, "no model is known as '{}'; there are {}, or ORG/NAME", name,
                 all_names());
  }
  const KnownModel* known = reference.known;
  reference.repository = known != nullptr ? known->repository : name;
  reference.revision = known != nullptr ? known->revision : kMainBranch;
  if (at == std::string_view::npos) return reference;

  const std::string_view revision = text.substr(at + 1);
  if (!is_revision(revision)) {
    return invalid_argument("'{}' is no revision: a branch, a tag or a commit is wanted", revision);
  }
  if (known != nullptr && is_date(revision) && revision < known->oldest_revision) {
    return error(ErrorCode::kUnsupported,
                 "{} of {} speaks GPT-2's vocabulary, which Fovea does not read with weights of "
                 "this form; {} is the first that works",
                 revision, known->name, known->oldest_revision);
  }
  reference.is_default_revision = revision == reference.revision;
  reference.revision = revision;
  return reference;
}

}  // namespace fovea::hub
