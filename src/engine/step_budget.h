#pragma once

#include <algorithm>

#include "engine/step_costs.h"

namespace fovea {

/// What is left of a step.
struct StepBudget {
  int rows = 0;
  bool answers_run = false;  ///< a stall is felt by somebody
  double stall_ms = 0;       ///< time for prompts and crops that is left
  bool may_exceed = false;  ///< one indivisible piece may go in although it costs more than is left
  const StepCosts* costs = nullptr;

  bool can_pay(double cost_ms) const { return !answers_run || cost_ms <= stall_ms || may_exceed; }
  void pay(double cost_ms) {
    stall_ms = std::max(0.0, stall_ms - cost_ms);
    may_exceed = false;
  }
};

}  // namespace fovea
