#pragma once

// Operations on single rows.

#include "vector_math.h"

namespace fovea::cpu::FOVEA_ISA {

// Statistics in two passes; the second also corrects the mean, so that rows far from zero lose
// nothing.
static void layer_norm(const float* x, const float* weight, const float* bias, float eps, float* y,
                       int64_t n) {
  Floats sums[2] = {};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    sums[0] += load(x + i);
    sums[1] += load(x + i + kLanes);
  }
  double total = static_cast<double>(sum_lanes(sums[0])) + static_cast<double>(sum_lanes(sums[1]));
  for (; i < n; ++i) total += static_cast<double>(x[i]);
  const float shift = static_cast<float>(total / static_cast<double>(n));

  Floats first[2] = {};
  Floats second[2] = {};
  for (i = 0; i + 2 * kLanes <= n; i += 2 * kLanes) {
#pragma GCC unroll 2
    for (int c = 0; c < 2; ++c) {
      const Floats d = load(x + i + c * kLanes) - splat(shift);
      first[c] += d;
      second[c] += d * d;
    }
  }
  double d_sum = static_cast<double>(sum_lanes(first[0] + first[1]));
  double d2_sum =
      static_cast<double>(sum_lanes(second[0])) + static_cast<double>(sum_lanes(second[1]));
  for (; i < n; ++i) {
    const double d = static_cast<double>(x[i] - shift);
    d_sum += d;
    d2_sum += d * d;
  }
  const double count = static_cast<double>(n);
  const double mean = d_sum / count;  // of x - shift
  const double variance = d2_sum / count - mean * mean;
  const float inverse = static_cast<float>(
      1.0 / __builtin_sqrt((variance < 0 ? 0 : variance) + static_cast<double>(eps)));
  const float correction = static_cast<float>(mean);
  for (i = 0; i < n; i += kLanes) {
    const int64_t lanes = n - i < kLanes ? n - i : kLanes;
    const Floats d = (load_some(x + i, lanes) - splat(shift)) - splat(correction);
    store_some(y + i,
               d * splat(inverse) * load_some(weight + i, lanes) + load_some(bias + i, lanes),
               lanes);
  }
}

static void activate(const float* x, Epilogue epilogue, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t lanes = n - i < kLanes ? n - i : kLanes;
    store_some(y + i, apply(epilogue, load_some(x + i, lanes)), lanes);
  }
}

static void gelu_gate(const float* h, const float* g, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t lanes = n - i < kLanes ? n - i : kLanes;
    const Floats gate = load_some(g + i, lanes) + splat(1.0f);
    store_some(y + i, gelu_erf(load_some(h + i, lanes)) * gate, lanes);
  }
}

static void add_scaled(float a, const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t lanes = n - i < kLanes ? n - i : kLanes;
    store_some(y + i, load_some(y + i, lanes) + splat(a) * load_some(x + i, lanes), lanes);
  }
}

static void max_sum_exp(const float* x, int64_t n, float* max_out, double* sum_out) {
  constexpr float kLowest = -__builtin_inff();
  Floats best = splat(kLowest);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) best = max(load(x + i), best);  // NaN compares false
  float largest = max_lanes(best);
  for (; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  *max_out = largest;
  *sum_out = 0;
  if (!(largest > kLowest) || largest == -kLowest) return;
  double total = 0;
  constexpr int64_t kRun = 64 * kLanes;  // floats summed in single precision
  for (i = 0; i < n; i += kRun) {
    const int64_t end = n - i < kRun ? n : i + kRun;
    Floats sums = {};
    for (int64_t j = i; j < end; j += kLanes) {
      const int64_t lanes = end - j < kLanes ? end - j : kLanes;
      const Floats d = load_some(x + j, lanes) - splat(largest);
      // Below e^-80, and for NaN, the term is nothing; lanes past the end are cut below.
      Floats term = d > splat(-80.0f) ? exp_of(d) : Floats{};
      if (lanes < kLanes) {
        for (int64_t lane = lanes; lane < kLanes; ++lane) term[lane] = 0;
      }
      sums += term;
    }
    total += static_cast<double>(sum_lanes(sums));
  }
  *sum_out = total;
}

}  // namespace fovea::cpu::FOVEA_ISA
