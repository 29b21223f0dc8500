#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "backend/ops.h"

namespace fovea {

class AdapterSlots;

/// Rows of a step whose input is no word: image embeddings, coordinates, sizes.
struct EmbeddedRows {
  TensorView values;  ///< [M, D]
  TensorView rows;    ///< [M] i32: the step's row that each value is for
};

/// What one pass through the text model needs. T = rows of this step, S = sequences. Tensors are on
/// the device.
struct ForwardBatch {
  TensorView token_ids;  ///< [T] i32 vocabulary ids; -1 for rows that come from `embedded`
  TensorView positions;  ///< [T] i32 absolute position in the sequence
  TensorView slots;      ///< [T] i32 page * page_size + offset where K and V go
  TensorView last_rows;  ///< [S] i32 the row of each sequence whose hidden state is wanted
  std::span<const EmbeddedRows> embedded;
  AttentionBatch attention;
  const AdapterSlots* adapters = nullptr;            ///< null: no row has an adapter
  std::span<const std::int32_t> adapter_slots = {};  ///< [S] host memory: slot of each sequence,
                                                     ///< -1 = none; empty = none has one

  bool has_adapters() const {
    return adapters != nullptr &&
           std::ranges::any_of(adapter_slots, [](std::int32_t slot) { return slot >= 0; });
  }
};

}  // namespace fovea
