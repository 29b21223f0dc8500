#pragma once

#include <cstdint>

#include "backend/ops.h"
#include "base/check.h"

namespace fovea::cpu {

/// body(row, slot) for every row in [0, num_rows) whose sequence has an adapter.
template <class Body>
void each_lora_row(const LoraBatch& batch, std::int64_t num_rows, const Body& body) {
  FOVEA_CHECK(batch.query_start.size() == batch.slots.size() + 1, "{} slots, {} row offsets",
              batch.slots.size(), batch.query_start.size());
  FOVEA_CHECK(batch.query_start.front() >= 0 && batch.query_start.back() <= num_rows,
              "rows {} to {} of {}", batch.query_start.front(), batch.query_start.back(), num_rows);
  for (std::size_t s = 0; s < batch.slots.size(); ++s) {
    if (batch.slots[s] < 0) continue;
    for (std::int64_t row = batch.query_start[s]; row < batch.query_start[s + 1]; ++row) {
      body(row, batch.slots[s]);
    }
  }
}

/// Aborts unless the shapes fit a linear of these sizes; num_experts is 1 for a dense one.
void check_lora(const LoraWeights& weights, std::int64_t num_experts, std::int64_t num_inputs,
                std::int64_t num_outputs);

}  // namespace fovea::cpu
