#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/error.h"
#include "engine/engine_loop.h"

namespace fovea {

inline constexpr double kPriorityStepMs = 1000;  // head start in line

/// A request inside the engine.
struct EngineLoop::Active {
  std::uint64_t id = 0;
  Request request;
  std::shared_ptr<const Callbacks> callbacks;
  std::unique_ptr<SkillState> skill;
  Prompt prompt;  // until the sequence is made of it
  Generation generation;
  Response response;
  std::unique_ptr<Delivery::Message> last_message;  // ready from the beginning

  AdapterUse adapter;
  std::vector<TokenId> suppressed;  // of the next token, when the rule's own are not all
  std::optional<RuleAhead> guess;   // that a row in flight runs ahead on

  // On now_ms()'s clock; 0 = not yet.
  double submitted_ms = 0, picture_since_ms = 0, encoding_since_ms = 0, admitted_ms = 0,
         first_token_ms = 0, last_token_ms = 0;

  double place_ms() const { return submitted_ms - request.priority * kPriorityStepMs; }
};

inline Error cancelled() noexcept {
  return say(ErrorCode::kCancelled, "the caller stopped the request");
}

}  // namespace fovea
