#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "fovea/engine.h"

#include "api_error.h"

namespace fovea::server {

/// The names that `model` may have in a request: the loaded model's own, those under which clients
/// know its family, and the adapters that the engine has at that moment. Thread-safe.
class ModelNames {
 public:
  /// `name` is the model's own; empty: its family's. The engine outlives this.
  ModelNames(const std::string& name, const Engine& engine);

  const std::string& base() const { return base_; }

  /// The adapter that a request wants, empty for none. `model` is empty, a base name, an adapter's
  /// name or "base/id@step"; `adapter` names one directly. Errors: 404 for unknown names.
  std::variant<std::string, ApiError> adapter_of(const std::string& model,
                                                 const std::string& adapter) const;

  /// GET /v1/models, for OpenAI's clients (`data`) and Station's (`models`).
  boost::json::object list() const;
  /// GET /v1/models/{id}. Errors: 404.
  std::variant<boost::json::object, ApiError> entry(const std::string& id) const;

 private:
  bool is_base(std::string_view name) const;
  std::vector<std::string> adapters() const;
  std::variant<std::string, ApiError> find_adapter(const std::string& name) const;
  boost::json::object entry_of(const std::string& id, bool is_adapter) const;

  const Engine& engine_;
  std::string base_;
  std::string family_;
  int max_context_;
  std::int64_t created_s_;
};

}  // namespace fovea::server
