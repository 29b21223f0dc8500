#include "model_names.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <chrono>
#include <fmt/format.h>
#include <utility>

namespace fovea::server {
namespace {

namespace json = boost::json;

bool is_digits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

// "01HX@120": how fine-tunes are called, with the step of their training.
bool is_tune_name(std::string_view name) {
  const std::size_t at = name.rfind('@');
  return at != std::string_view::npos && at > 0 && is_digits(name.substr(at + 1));
}

std::string_view without_owner(std::string_view name) {
  for (const std::string_view owner : {"moondream/", "vikhyatk/"}) {
    if (name.starts_with(owner)) return name.substr(owner.size());
  }
  return name;
}

ApiError unknown_model(const std::string& name) {
  ApiError error = not_found("model_not_found",
                             fmt::format("there is no model '{}' here; GET /v1/models lists what "
                                         "there is",
                                         name.substr(0, 200)));
  error.param = "model";
  return error;
}

}  // namespace

ModelNames::ModelNames(const std::string& name, const Engine& engine)
    : engine_(engine),
      base_(name.empty() ? engine.info().family : name),
      family_(engine.info().family),
      max_context_(engine.info().max_context),
      created_s_(std::chrono::duration_cast<std::chrono::seconds>(
                     std::chrono::system_clock::now().time_since_epoch())
                     .count()) {}

bool ModelNames::is_base(std::string_view name) const {
  if (name == base_) return true;
  const std::string_view short_name = without_owner(name);
  if (short_name == base_ || short_name == family_ || short_name == "moondream") return true;
  if (family_ == "moondream3") return short_name == "moondream3-preview";
  return family_ == "moondream-0.5b" && short_name == "moondream-0_5b";
}

std::vector<std::string> ModelNames::adapters() const {
  std::vector<std::string> names;
  for (AdapterInfo& adapter : engine_.adapters()) names.push_back(std::move(adapter.name));
  return names;
}

std::variant<std::string, ApiError> ModelNames::find_adapter(const std::string& name) const {
  const std::string without_step = name.substr(0, name.rfind('@'));
  const std::vector<std::string> known = adapters();
  for (const std::string& wanted : {name, without_step}) {
    if (std::find(known.begin(), known.end(), wanted) != known.end()) return wanted;
  }
  return unknown_model(name);
}

std::variant<std::string, ApiError> ModelNames::adapter_of(const std::string& model,
                                                           const std::string& adapter) const {
  if (!adapter.empty()) {
    if (!model.empty() && !is_base(model)) return unknown_model(model);
    return find_adapter(adapter);
  }
  if (model.empty() || is_base(model)) return std::string();
  const std::size_t slash = model.rfind('/');
  if (slash != std::string::npos && is_tune_name(std::string_view(model).substr(slash + 1))) {
    if (!is_base(std::string_view(model).substr(0, slash))) return unknown_model(model);
    return find_adapter(model.substr(slash + 1));
  }
  return find_adapter(model);
}

json::object ModelNames::entry_of(const std::string& id, bool is_adapter) const {
  json::object entry{
      {"id", id},      {"object", "model"}, {"created", created_s_},        {"owned_by", "local"},
      {"root", base_}, {"parent", nullptr}, {"max_model_len", max_context_}};
  if (is_adapter) {
    entry["root"] = id;
    entry["parent"] = base_;
  }
  return entry;
}

json::object ModelNames::list() const {
  json::array data, models;
  const auto add = [&](const std::string& id, bool is_adapter) {
    data.push_back(entry_of(id, is_adapter));
    models.push_back(json::object{
        {"id", id},
        {"name", id},
        {"description", is_adapter ? "an adapter of " + base_ : "local weights, " + family_},
        {"version", json::string(version())}});
  };
  add(base_, false);
  for (const std::string& adapter : adapters()) add(adapter, true);
  return {{"object", "list"}, {"data", std::move(data)}, {"models", std::move(models)}};
}

std::variant<json::object, ApiError> ModelNames::entry(const std::string& id) const {
  const std::vector<std::string> known = adapters();
  const bool is_adapter = std::find(known.begin(), known.end(), id) != known.end();
  if (is_adapter || is_base(id)) return entry_of(id, is_adapter);
  return unknown_model(id);
}

}  // namespace fovea::server
