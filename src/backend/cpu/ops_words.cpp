#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "backend/cpu/cpu_ops.h"
#include "base/check.h"
#include "tensor/half.h"

namespace fovea::cpu {

void CpuOps::fourier_features(Stream&, TensorView values, TensorView frequencies,
                              bool round_to_bf16, TensorView y) {
  const std::int64_t inputs = frequencies.shape[0];
  const std::int64_t features = frequencies.shape.back();
  const std::int64_t rows = values.num_elements() / inputs;
  FOVEA_CHECK(values.num_elements() == rows * inputs && y.num_elements() == rows * 2 * features,
              "values {}, frequencies {}, y {}", values.shape.to_string(),
              frequencies.shape.to_string(), y.shape.to_string());
  constexpr float kTwoPi = 6.28318530717958647692f;
  const auto rounded = [&](float value) {
    return round_to_bf16 ? fovea::round_to_bf16(value) : value;
  };
  for (std::int64_t r = 0; r < rows; ++r) {
    float* out = y.as<float>() + r * 2 * features;
    for (std::int64_t j = 0; j < features; ++j) {
      float angle = 0;
      for (std::int64_t c = 0; c < inputs; ++c) {
        const float value = rounded(values.as<float>()[r * inputs + c]);
        angle += rounded(kTwoPi * value) * frequencies.as<float>()[c * features + j];
      }
      const auto exact = static_cast<double>(rounded(angle));
      out[j] = rounded(static_cast<float>(std::cos(exact)));
      out[features + j] = rounded(static_cast<float>(std::sin(exact)));
    }
  }
}

void CpuOps::argmax_bins(Stream&, TensorView logits, int window, TensorView bins_out,
                         TensorView mass) {
  const std::int64_t bins = logits.shape.back();
  const std::int64_t rows = bins_out.num_elements();
  FOVEA_CHECK(logits.num_elements() == rows * bins && mass.num_elements() == rows && bins > 0,
              "logits {}, {} rows", logits.shape.to_string(), rows);
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* row = logits.as<float>() + r * bins;
    float largest = 0;
    double total = 0;
    kernels_.max_sum_exp(row, bins, &largest, &total);
    const float* found = std::find(row, row + bins, largest);
    const std::int64_t best = found == row + bins ? 0 : found - row;
    double near = 0;
    const std::int64_t end = std::min(bins, best + window + 1);
    for (std::int64_t i = std::max<std::int64_t>(0, best - window); i < end; ++i) {
      if (!std::isnan(row[i])) near += std::exp(static_cast<double>(row[i] - largest));
    }
    bins_out.as<std::int32_t>()[r] = static_cast<std::int32_t>(best);
    mass.as<float>()[r] = total > 0 ? static_cast<float>(std::min(1.0, near / total)) : 0.0f;
  }
}

void CpuOps::sample(Stream&, const SampleArgs& args) {
  const std::int64_t vocab = args.logits.shape.back();
  const auto rows = static_cast<std::int64_t>(args.rows.size());
  FOVEA_CHECK(args.logits.num_elements() == rows * vocab && args.ids.num_elements() == rows &&
                  args.logprobs.num_elements() == rows,
              "logits {} for {} rows", args.logits.shape.to_string(), rows);
  const bool lists_top = !args.top_ids.empty();
  FOVEA_CHECK(lists_top == !args.top_logprobs.empty() &&
                  (!lists_top || (args.top_ids.num_elements() == rows * kMaxTopWords &&
                                  args.top_logprobs.num_elements() == rows * kMaxTopWords)),
              "top words {} and {} for {} rows", args.top_ids.shape.to_string(),
              args.top_logprobs.shape.to_string(), rows);
  const auto run_one = [&](std::int64_t r, int thread_idx) {
    const std::span<const float> logits(args.logits.as<float>() + r * vocab,
                                        static_cast<std::size_t>(vocab));
    const SamplingRow& row = args.rows[static_cast<std::size_t>(r)];
    FOVEA_CHECK(row.num_top >= 0 && row.num_top <= (lists_top ? kMaxTopWords : 0),
                "{} top words of {}", row.num_top, lists_top ? kMaxTopWords : 0);
    SamplerScratch& scratch = sampler_scratch_[static_cast<std::size_t>(thread_idx)];
    const SampledWord word = sample_word(logits, row, args, kernels_, scratch);
    args.ids.as<std::int32_t>()[r] = word.id;
    args.logprobs.as<float>()[r] = word.logprob;
    if (!lists_top) return;
    for (std::int64_t i = 0; i < kMaxTopWords; ++i) {
      const bool given = static_cast<std::size_t>(i) < scratch.top.size();
      const SampledWord none{-1, -std::numeric_limits<float>::infinity()};
      const SampledWord& top = given ? scratch.top[static_cast<std::size_t>(i)] : none;
      args.top_ids.as<std::int32_t>()[r * kMaxTopWords + i] = top.id;
      args.top_logprobs.as<float>()[r * kMaxTopWords + i] = top.logprob;
    }
  };
  pool_.parallel_for(rows, std::ref(run_one));
}

}  // namespace fovea::cpu
