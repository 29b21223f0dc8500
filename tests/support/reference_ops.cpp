#include "support/reference_ops.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/half.h"

namespace fovea::reference {
namespace {

constexpr double kPi = 3.14159265358979323846;

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

}  // namespace

double gelu_tanh(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / kPi) * (x + 0.044715 * x * x * x)));
}

double gelu_erf(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }

Doubles linear(const Floats& x, const Floats& w, const Floats& scale, const Floats& bias,
               std::int64_t m, std::int64_t n, std::int64_t k) {
  Doubles y(at(m * n));
  for (std::int64_t t = 0; t < m; ++t) {
    for (std::int64_t r = 0; r < n; ++r) {
      double sum = 0;
      for (std::int64_t i = 0; i < k; ++i) {
        sum += static_cast<double>(x[at(t * k + i)]) * static_cast<double>(w[at(r * k + i)]);
      }
      if (!scale.empty()) sum *= static_cast<double>(scale[at(r)]);
      if (!bias.empty()) sum += static_cast<double>(bias[at(r)]);
      y[at(t * n + r)] = sum;
    }
  }
  return y;
}

Doubles attention(const Doubles& q, const Doubles& k, const Doubles& v,
                  const std::vector<std::int64_t>& visible, std::int64_t head_dim) {
  Doubles out(q.size(), 0.0);
  const double scale = 1 / std::sqrt(static_cast<double>(head_dim));
  for (std::size_t r = 0; r < visible.size(); ++r) {
    const double* row = q.data() + r * at(head_dim);
    Doubles scores(at(visible[r]));
    for (std::size_t j = 0; j < scores.size(); ++j) {
      for (std::int64_t d = 0; d < head_dim; ++d) {
        scores[j] += row[d] * k[j * at(head_dim) + at(d)] * scale;
      }
    }
    const double largest = *std::max_element(scores.begin(), scores.end());
    double total = 0;
    for (double& score : scores) total += score = std::exp(score - largest);
    for (std::size_t j = 0; j < scores.size(); ++j) {
      for (std::int64_t d = 0; d < head_dim; ++d) {
        out[r * at(head_dim) + at(d)] += scores[j] / total * v[j * at(head_dim) + at(d)];
      }
    }
  }
  return out;
}

Doubles layer_norm(const Floats& x, const Floats& weight, const Floats& bias, double eps,
                   std::int64_t width) {
  Doubles y(x.size());
  for (std::size_t row = 0; row < x.size(); row += at(width)) {
    double mean = 0;
    for (std::int64_t i = 0; i < width; ++i) mean += static_cast<double>(x[row + at(i)]);
    mean /= static_cast<double>(width);
    double variance = 0;
    for (std::int64_t i = 0; i < width; ++i) {
      variance += std::pow(static_cast<double>(x[row + at(i)]) - mean, 2);
    }
    variance /= static_cast<double>(width);
    for (std::int64_t i = 0; i < width; ++i) {
      y[row + at(i)] = (static_cast<double>(x[row + at(i)]) - mean) / std::sqrt(variance + eps) *
                           static_cast<double>(weight[at(i)]) +
                       static_cast<double>(bias[at(i)]);
    }
  }
  return y;
}

Floats patchify(const std::vector<std::uint8_t>& crops, const Floats& values,
                std::int64_t num_crops, std::int64_t side, std::int64_t patch) {
  const std::int64_t grid = side / patch;
  Floats out;
  for (std::int64_t n = 0; n < num_crops; ++n) {
    for (std::int64_t p = 0; p < grid * grid; ++p) {
      for (std::int64_t c = 0; c < 3; ++c) {
        for (std::int64_t y = 0; y < patch; ++y) {
          for (std::int64_t x = 0; x < patch; ++x) {
            const std::int64_t row = p / grid * patch + y;
            const std::int64_t col = p % grid * patch + x;
            out.push_back(values[crops[at(((n * side + row) * side + col) * 3 + c)]]);
          }
        }
      }
    }
  }
  return out;
}

Doubles stitch_and_pool(const Floats& features, std::int64_t tile_rows, std::int64_t tile_cols,
                        std::int64_t grid, std::int64_t width, std::int64_t margin) {
  const std::int64_t inner = grid - 2 * margin;
  const std::int64_t height = inner * tile_rows + 2 * margin;
  const std::int64_t length = inner * tile_cols + 2 * margin;
  const std::int64_t first_tile = tile_rows * tile_cols == 1 ? 0 : 1;
  Doubles map(at(height * length * width));
  for (std::int64_t i = 0; i < tile_rows; ++i) {
    for (std::int64_t j = 0; j < tile_cols; ++j) {
      const std::int64_t y_end = i == tile_rows - 1 ? grid : grid - margin;
      const std::int64_t x_end = j == tile_cols - 1 ? grid : grid - margin;
      for (std::int64_t y = i == 0 ? 0 : margin; y < y_end; ++y) {
        for (std::int64_t x = j == 0 ? 0 : margin; x < x_end; ++x) {
          for (std::int64_t c = 0; c < width; ++c) {
            const std::int64_t tile = first_tile + i * tile_cols + j;
            map[at(((inner * i + y) * length + inner * j + x) * width + c)] =
                static_cast<double>(features[at(((tile * grid + y) * grid + x) * width + c)]);
          }
        }
      }
    }
  }
  Doubles out;
  for (std::int64_t cell = 0; cell < grid * grid; ++cell) {
    for (std::int64_t c = 0; c < width; ++c) {
      out.push_back(static_cast<double>(features[at(cell * width + c)]));
    }
    const std::int64_t row = cell / grid;
    const std::int64_t col = cell % grid;
    for (std::int64_t c = 0; c < width; ++c) {
      double sum = 0;
      std::int64_t count = 0;
      for (std::int64_t y = row * height / grid; y * grid < (row + 1) * height; ++y) {
        for (std::int64_t x = col * length / grid; x * grid < (col + 1) * length; ++x) {
          sum += map[at((y * length + x) * width + c)];
          ++count;
        }
      }
      out.push_back(sum / static_cast<double>(count));
    }
  }
  return out;
}

void rotate(std::span<double> head, std::span<const float> table) {
  const std::size_t half = table.size() / 2;
  for (std::size_t i = 0; i < half; ++i) {
    const double cosine = static_cast<double>(table[2 * i]);
    const double sine = static_cast<double>(table[2 * i + 1]);
    const double a = head[i];
    const double b = head[i + half];
    head[i] = a * cosine - b * sine;
    head[i + half] = a * sine + b * cosine;
  }
}

void lora(std::span<const float> x, std::span<const float> a, std::span<const float> b,
          std::int64_t rank, std::span<double> y) {
  const std::size_t inputs = a.size() / at(rank), outputs = b.size() / at(rank);
  for (std::size_t row = 0; row < x.size() / inputs; ++row) {
    for (std::size_t j = 0; j < at(rank); ++j) {
      double hidden = 0;
      for (std::size_t i = 0; i < inputs; ++i) {
        hidden += static_cast<double>(a[j * inputs + i]) * static_cast<double>(x[row * inputs + i]);
      }
      for (std::size_t o = 0; o < outputs; ++o) {
        y[row * outputs + o] += static_cast<double>(b[j * outputs + o]) * hidden;
      }
    }
  }
}

void moe_mlp(const Floats& x, const Ints& experts, const Floats& weights,
             const std::vector<Floats>& up, const std::vector<Floats>& down, std::int64_t k,
             std::int64_t dim, std::int64_t inner, Doubles& y) {
  for (std::size_t pair = 0; pair < experts.size(); ++pair) {
    const std::int64_t token = static_cast<std::int64_t>(pair) / k;
    const Floats& w1 = up[at(experts[pair])];
    const Floats& w2 = down[at(experts[pair])];
    const auto product = [&](std::int64_t row) {
      double sum = 0;
      for (std::int64_t i = 0; i < dim; ++i) {
        sum += static_cast<double>(w1[at(row * dim + i)]) *
               static_cast<double>(x[at(token * dim + i)]);
      }
      return sum;
    };
    Doubles hidden;
    for (std::int64_t i = 0; i < inner; ++i) {
      hidden.push_back(gelu_erf(product(i)) * (product(inner + i) + 1));
    }
    for (std::int64_t d = 0; d < dim; ++d) {
      double sum = 0;
      for (std::int64_t i = 0; i < inner; ++i) {
        sum += static_cast<double>(w2[at(d * inner + i)]) * hidden[at(i)];
      }
      y[at(token * dim + d)] += static_cast<double>(weights[pair]) * sum;
    }
  }
}

Doubles fourier_features(const Floats& values, const Floats& frequencies, std::int64_t inputs,
                         bool round_to_bf16) {
  const std::int64_t features = static_cast<std::int64_t>(frequencies.size()) / inputs;
  const auto rounded = [&](double value) {
    return round_to_bf16 ? static_cast<double>(fovea::round_to_bf16(static_cast<float>(value)))
                         : value;
  };
  Doubles y;
  for (std::size_t row = 0; row < values.size(); row += at(inputs)) {
    for (const bool sine : {false, true}) {
      for (std::int64_t j = 0; j < features; ++j) {
        double angle = 0;
        for (std::int64_t c = 0; c < inputs; ++c) {
          const double turn = rounded(2 * kPi * rounded(static_cast<double>(values[row + at(c)])));
          angle += turn * static_cast<double>(frequencies[at(c * features + j)]);
        }
        angle = rounded(angle);
        y.push_back(rounded(sine ? std::sin(angle) : std::cos(angle)));
      }
    }
  }
  return y;
}

Doubles changed_logprobs(std::span<const float> logits, const LogitChanges& changes) {
  Doubles x(logits.begin(), logits.end());
  for (std::size_t i = 0; i < changes.seen_ids.size(); ++i) {
    double& logit = x[at(changes.seen_ids[i])];
    const int count = changes.seen_counts[i];
    if (logit > 0) {
      logit /= changes.repetition_penalty;
    } else {
      logit *= changes.repetition_penalty;
    }
    logit -= changes.frequency_penalty * count;
    logit -= count > 0 ? changes.presence_penalty : 0;
  }
  for (std::size_t i = 0; i < changes.bias_ids.size(); ++i) {
    x[at(changes.bias_ids[i])] += static_cast<double>(changes.bias[i]);
  }
  if (!changes.allowed.empty()) {
    Doubles masked(x.size(), -std::numeric_limits<double>::infinity());
    for (const std::int32_t id : changes.allowed) masked[at(id)] = x[at(id)];
    x = masked;
  }
  const double largest = *std::max_element(x.begin(), x.end());
  double total = 0;
  for (const double logit : x) total += std::exp(logit - largest);
  for (double& logit : x) logit -= largest + std::log(total);
  return x;
}

Doubles softmax(std::span<const float> logits, double temperature) {
  Doubles p;
  const double largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double total = 0;
  for (const float logit : logits) {
    p.push_back(std::exp((static_cast<double>(logit) - largest) / temperature));
    total += p.back();
  }
  for (double& value : p) value /= total;
  return p;
}

}  // namespace fovea::reference
