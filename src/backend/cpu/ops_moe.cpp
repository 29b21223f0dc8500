#include <algorithm>
#include <cmath>

#include "backend/cpu/cpu_ops.h"
#include "backend/cpu/lora_rows.h"
#include "backend/cpu/packed_matrix.h"
#include "backend/cpu/parallel_rows.h"
#include "base/check.h"

namespace fovea::cpu {
namespace {

GemmArgs product_with(const Matrix& matrix) {
  const auto& weight = static_cast<const PackedMatrix&>(matrix);
  GemmArgs product{};
  product.panels = weight.panels();
  product.type = weight.type();
  product.scale = weight.scale();
  product.add_rows = 1;
  product.n = weight.rows();
  product.k = weight.cols();
  return product;
}

// The k largest of one row, the lowest index first among equals; NaN loses to everything else.
void route_row(const float* logits, std::int64_t num_experts, std::int64_t k, std::int32_t* experts,
               float* weights) {
  for (std::int64_t i = 0; i < k; ++i) {
    std::int64_t best = -1;
    for (std::int64_t e = 0; e < num_experts; ++e) {
      if (std::find(experts, experts + i, static_cast<std::int32_t>(e)) != experts + i) continue;
      if (best < 0 || logits[e] > logits[best] ||
          (std::isnan(logits[best]) && !std::isnan(logits[e]))) {
        best = e;
      }
    }
    experts[i] = static_cast<std::int32_t>(best);
  }
  float total = 0;
  for (std::int64_t i = 0; i < k; ++i) {
    weights[i] = std::exp(logits[experts[i]] - logits[experts[0]]);
    total += weights[i];
  }
  for (std::int64_t i = 0; i < k; ++i) weights[i] /= total;
}

}  // namespace

void CpuOps::moe_route(Stream&, TensorView logits, TensorView experts, TensorView weights) {
  const std::int64_t rows = logits.shape[0];
  const std::int64_t num_experts = logits.shape.back();
  const std::int64_t k = experts.shape.back();
  FOVEA_CHECK(
      k <= num_experts && experts.num_elements() == rows * k && weights.num_elements() == rows * k,
      "{} of {} experts", k, num_experts);
  parallel_rows(pool_, rows, 4 * num_experts * k, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      route_row(logits.as<float>() + t * num_experts, num_experts, k,
                experts.as<std::int32_t>() + t * k, weights.as<float>() + t * k);
    }
  });
}

// A counting sort of (token, choice) pairs by expert.
struct CpuOps::ExpertRows {
  std::int32_t* begin;   // [experts + 1] first pair of each expert
  std::int32_t* tokens;  // [pairs] token of each pair, expert by expert
  std::int32_t* place;   // [tokens * k] where pair (token, choice) went

  static ExpertRows sort(GrowingMemory& memory, TensorView experts, std::int64_t num_experts) {
    const std::int64_t pairs = experts.num_elements();
    const std::int64_t k = experts.shape.back();
    std::int32_t* data =
        memory.get<std::int32_t>(static_cast<std::size_t>(num_experts + 1 + 2 * pairs));
    ExpertRows rows{data, data + num_experts + 1, data + num_experts + 1 + pairs};
    std::fill(rows.begin, rows.begin + num_experts + 1, 0);
    const std::int32_t* chosen = experts.as<std::int32_t>();
    for (std::int64_t i = 0; i < pairs; ++i) {
      FOVEA_CHECK(chosen[i] >= 0 && chosen[i] < num_experts, "expert {} of {}", chosen[i],
                  num_experts);
      ++rows.begin[chosen[i] + 1];
    }
    for (std::int64_t e = 0; e < num_experts; ++e) rows.begin[e + 1] += rows.begin[e];
    // begin[e] runs to the end of expert e while pairs are placed, then everything moves back.
    for (std::int64_t i = 0; i < pairs; ++i) {
      rows.place[i] = rows.begin[chosen[i]]++;
      rows.tokens[rows.place[i]] = static_cast<std::int32_t>(i / k);
    }
    for (std::int64_t e = num_experts; e > 0; --e) rows.begin[e] = rows.begin[e - 1];
    rows.begin[0] = 0;
    return rows;
  }
};

struct CpuOps::ExpertLora {
  const MoeLora* adapters;    // null: none
  const std::int32_t* slots;  // adapter slot of each token of the block, -1 = none

  // Every (token, choice) pair with an adapter, as an update from its token to its place.
  void collect(TensorView experts, std::int64_t num_experts, const ExpertRows& rows,
               std::vector<LoraRow>& pairs) const {
    const std::int64_t k = experts.shape.back();
    pairs.clear();
    for (std::int64_t i = 0; i < experts.num_elements(); ++i) {
      const auto token = static_cast<std::int32_t>(i / k);
      if (slots[token] < 0) continue;
      const std::int64_t matrix = slots[token] * num_experts + experts.as<std::int32_t>()[i];
      pairs.push_back({static_cast<std::int32_t>(matrix), token, rows.place[i]});
    }
  }
};

void CpuOps::run_experts(TensorView x, TensorView experts, TensorView weights,
                         std::span<const std::unique_ptr<const Matrix>> up,
                         std::span<const std::unique_ptr<const Matrix>> down,
                         const ExpertLora& lora, TensorView y) {
  const std::int64_t dim = x.shape.back();
  const std::int64_t k = experts.shape.back();
  const std::int64_t pairs = experts.num_elements();
  const std::int64_t inner = down[0]->cols();
  const ExpertRows rows =
      ExpertRows::sort(expert_rows_memory_, experts, static_cast<std::int64_t>(up.size()));
  float* hidden = expert_hidden_memory_.get<float>(static_cast<std::size_t>(pairs * 2 * inner));
  float* results = expert_out_memory_.get<float>(static_cast<std::size_t>(pairs * dim));

  expert_products_.clear();
  for (std::size_t e = 0; e < up.size(); ++e) {
    if (rows.begin[e] == rows.begin[e + 1]) continue;
    GemmArgs product = product_with(*up[e]);
    product.x = x.as<float>();
    product.x_stride = dim;
    product.x_rows = rows.tokens + rows.begin[e];
    product.y = hidden + rows.begin[e] * 2 * inner;
    product.y_stride = 2 * inner;
    product.m = rows.begin[e + 1] - rows.begin[e];
    expert_products_.push_back(product);
  }
  products_.run(expert_products_);
  if (lora.adapters != nullptr) {
    lora.collect(experts, static_cast<std::int64_t>(up.size()), rows, lora_rows_);
    group_lora_rows();
    run_lora(lora.adapters->up, x.as<float>(), dim, hidden, 2 * inner);
  }

  parallel_rows(pool_, pairs, 4 * inner, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      float* row = hidden + i * 2 * inner;
      kernels_.gelu_gate(row, row + inner, row, inner);
    }
  });

  expert_products_.clear();
  for (std::size_t e = 0; e < down.size(); ++e) {
    if (rows.begin[e] == rows.begin[e + 1]) continue;
    GemmArgs product = product_with(*down[e]);
    product.x = hidden + rows.begin[e] * 2 * inner;
    product.x_stride = 2 * inner;
    product.y = results + rows.begin[e] * dim;
    product.y_stride = dim;
    product.m = rows.begin[e + 1] - rows.begin[e];
    expert_products_.push_back(product);
  }
  products_.run(expert_products_);
  if (lora.adapters != nullptr) {
    for (LoraRow& row : lora_rows_) row.x_row = row.y_row;
    run_lora(lora.adapters->down, hidden, 2 * inner, results, dim);
  }

  parallel_rows(pool_, x.shape[0], k * dim, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t i = t * k; i < (t + 1) * k; ++i) {
        kernels_.add_scaled(weights.as<float>()[i], results + rows.place[i] * dim,
                            y.as<float>() + t * dim, dim);
      }
    }
  });
}

void CpuOps::moe_mlp(Stream&, TensorView x, TensorView experts, TensorView weights,
                     std::span<const std::unique_ptr<const Matrix>> up,
                     std::span<const std::unique_ptr<const Matrix>> down, const MoeLora* lora,
                     TensorView y) {
  const std::int64_t rows = x.shape[0];
  const std::int64_t k = experts.shape.back();
  FOVEA_CHECK(!up.empty() && up.size() == down.size(), "{} up, {} down", up.size(), down.size());
  FOVEA_CHECK(experts.num_elements() == rows * k && weights.num_elements() == rows * k &&
                  y.num_elements() == x.num_elements(),
              "x {}, experts {}, y {}", x.shape.to_string(), experts.shape.to_string(),
              y.shape.to_string());
  for (std::size_t e = 0; e < up.size(); ++e) {
    FOVEA_CHECK(up[e]->cols() == x.shape.back() && up[e]->rows() == 2 * down[e]->cols() &&
                    down[e]->rows() == x.shape.back() && down[e]->cols() == down[0]->cols(),
                "expert {}: up {} x {}, down {} x {}", e, up[e]->rows(), up[e]->cols(),
                down[e]->rows(), down[e]->cols());
  }
  if (lora != nullptr) {
    const auto num_experts = static_cast<std::int64_t>(up.size());
    check_lora(lora->up, num_experts, x.shape.back(), up[0]->rows());
    check_lora(lora->down, num_experts, down[0]->cols(), x.shape.back());
    lora_row_slots_.assign(static_cast<std::size_t>(rows), -1);
    each_lora_row(lora->batch, rows, [&](std::int64_t row, std::int32_t slot) {
      lora_row_slots_[static_cast<std::size_t>(row)] = slot;
    });
  }
  // Bounds the workspace: 2 inner + dim floats for each pair, 128 MiB for Moondream 3.
  constexpr std::int64_t kMostPairs = 8192;
  const std::int64_t step = std::max<std::int64_t>(1, kMostPairs / k);
  for (std::int64_t begin = 0; begin < rows; begin += step) {
    const std::int64_t count = std::min(step, rows - begin);
    run_experts(x.rows(begin, count), experts.rows(begin, count), weights.rows(begin, count), up,
                down, {lora, lora == nullptr ? nullptr : lora_row_slots_.data() + begin},
                y.rows(begin, count));
  }
}

}  // namespace fovea::cpu
