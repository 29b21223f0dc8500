#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "fovea/engine.h"
#include "fovea/picture.h"

namespace fovea::testing {

/// What the public API does in tests of its callers: linked in place of the engine. Tests set it up
/// before a call and read afterwards what arrived. Engine::submit, Engine::cancel and draw_labels
/// may be called on several threads at once.
struct FakeEngine {
  // What the calls will do.
  Status create_status;
  Result<Response> response = Response{};
  std::vector<Result<Response>> responses;  ///< of run_all, one for each request; or `response`
  std::vector<std::string> pieces;          ///< handed to the stream callback
  std::vector<double> load_fractions;       ///< reported while loading
  Result<Image> decoded = Image{2, 1, {0, 0, 0, 0, 0, 0}};
  ModelInfo info;
  Result<ModelSummary> summary = ModelSummary{"moondream2", "bf16", 1000};
  /// Takes a submitted request's place in the engine; without it, `pieces` and `response` follow at
  /// once. May be called on several threads at once.
  std::function<Result<std::uint64_t>(const Request&, Callbacks)> on_submit;
  std::function<void(std::uint64_t)> on_cancel;
  EngineStats stats;
  std::vector<AdapterInfo> adapters;

  // What the calls were given.
  std::vector<EngineOptions> created;
  std::vector<Request> requests;
  std::vector<std::filesystem::path> inspected;
  std::vector<std::uint64_t> cancelled;
  std::vector<BoxLabel> boxes;
  std::vector<PointLabel> points;
};

/// The one that the fake functions use; reset it at the start of each test.
FakeEngine& fake_engine();

}  // namespace fovea::testing
