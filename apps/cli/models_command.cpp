#include <algorithm>
#include <boost/json.hpp>
#include <fmt/format.h>
#include <string>
#include <vector>

#include "fovea/engine.h"

#include "hub/human.h"
#include "hub/model_store.h"
#include "model_path.h"
#include "models_folder.h"
#include "pull_command.h"

namespace fovea::cli {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

// One line of the list. Of a model that cannot be looked into, `problem` says why.
struct ListedModel {
  std::string name;
  std::uint64_t bytes = 0;
  std::string family;
  std::string precision;
  std::string licence;
  fs::path folder;
  std::string revision;
  std::string commit;
  std::string problem;
};

void look_into(ListedModel& model) {
  const Result<ModelSummary> summary = inspect_model(model.folder);
  if (summary.ok()) {
    model.family = summary->family;
    model.precision = summary->stored_as;
  } else {
    model.problem = summary.error().message;
  }
}

ListedModel listed(const hub::StoredModel& stored) {
  ListedModel model{.name = stored.name,
                    .bytes = stored.bytes,
                    .family = {},
                    .precision = {},
                    .licence = {},
                    .folder = stored.folder,
                    .revision = {},
                    .commit = {},
                    .problem = {}};
  if (!stored.manifest) {
    model.problem = "incomplete; to go on: fovea pull " + stored.name;
    return model;
  }
  const hub::KnownModel* known = hub::find_known_model(stored.manifest->repository);
  model.licence = known != nullptr ? std::string(known->licence) : stored.manifest->licence;
  model.revision = stored.manifest->revision;
  model.commit = stored.manifest->commit;
  look_into(model);
  return model;
}

Result<std::vector<ListedModel>> collect(const ModelsArgs& args, const Terminal& terminal) {
  std::vector<ListedModel> models;
  if (const auto tiny = find_tiny(terminal.executable)) {
    ListedModel model;
    model.name = "tiny";
    model.bytes = hub::bytes_on_disk(*tiny);
    model.licence = "Apache-2.0, in the box";
    model.folder = *tiny;
    look_into(model);
    models.push_back(std::move(model));
  }
  Result<fs::path> root = models_folder(args.models_dir, terminal.environment);
  if (!root.ok()) return std::move(root).error();
  const Result<std::vector<hub::StoredModel>> stored = hub::ModelStore(*root).list();
  if (!stored.ok()) return stored.error();
  for (const hub::StoredModel& model : *stored) models.push_back(listed(model));
  return models;
}

std::string models_json(const std::vector<ListedModel>& models) {
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? json::value(nullptr) : json::value(text);
  };
  json::array array;
  for (const ListedModel& model : models) {
    array.push_back(json::object{{"name", model.name},
                                 {"bytes", model.bytes},
                                 {"family", text_or_null(model.family)},
                                 {"precision", text_or_null(model.precision)},
                                 {"licence", text_or_null(model.licence)},
                                 {"path", model.folder.string()},
                                 {"revision", text_or_null(model.revision)},
                                 {"commit", text_or_null(model.commit)},
                                 {"problem", text_or_null(model.problem)}});
  }
  return json::serialize(json::object{{"models", std::move(array)}}) + "\n";
}

std::string models_text(const std::vector<ListedModel>& models) {
  if (models.empty()) return "There are no models here. To get one: fovea pull moondream2\n";
  std::size_t width = 0;
  for (const ListedModel& model : models) width = std::max(width, model.name.size());
  std::string text;
  for (const ListedModel& model : models) {
    text += fmt::format("{:{}}  {:>8}", model.name, width, hub::human_bytes(model.bytes));
    if (model.problem.empty()) {
      text += fmt::format("  {}, {}; licence {}\n", model.family, model.precision,
                          model.licence.empty() ? "not said" : model.licence);
    } else {
      text += fmt::format("  {}\n", model.problem);
    }
    text += fmt::format("{:{}}            {}\n", "", width, model.folder.string());
  }
  return text;
}

int remove_model(const ModelsArgs& args, Terminal& terminal) {
  const auto fail = [&](const Error& error) { return report_failure(error, args.json, terminal); };
  const Result<hub::ModelReference> model = hub::parse_reference(*args.remove);
  if (!model.ok()) return fail(model.error());
  const Result<fs::path> root = models_folder(args.models_dir, terminal.environment);
  if (!root.ok()) return fail(root.error());
  const Result<std::uint64_t> freed = hub::ModelStore(*root).remove(*model);
  if (!freed.ok()) return fail(freed.error());
  if (args.json) {
    terminal.out << json::serialize(json::object{{"removed", model->name()}, {"bytes", *freed}})
                 << '\n';
  } else {
    terminal.out << fmt::format("{} is gone; {} are free again\n", model->name(),
                                hub::human_bytes(*freed));
  }
  return finish(terminal);
}

}  // namespace

int run_models(const ModelsArgs& args, Terminal& terminal) {
  if (args.remove) return remove_model(args, terminal);
  const Result<std::vector<ListedModel>> models = collect(args, terminal);
  if (!models.ok()) return report_failure(models.error(), args.json, terminal);
  terminal.out << (args.json ? models_json(*models) : models_text(*models));
  return finish(terminal);
}

}  // namespace fovea::cli
