#pragma once

#include <cstdint>
#include <vector>

#include "backend/ops.h"
#include "tensor/int4.h"

namespace fovea {

/// A row of a matrix in 4 bits, as every backend stores it in an order of its own.
class Int4Row {
 public:
  /// Quantises row `row` of a source whose rows fit_int4(), its row scale included.
  void quantise(const MatrixSource& source, std::int64_t row);

  /// What each code and scale of the row counts.
  float step() const { return step_; }
  /// Those of the inputs [16 index, 16 index + 16).
  const Int4Group& group(std::int64_t index) const {
    return groups_[static_cast<std::size_t>(index)];
  }

 private:
  float step_ = 1;
  std::vector<float> values_;
  std::vector<Int4Group> groups_;
};

}  // namespace fovea
