#include "engine/metrics.h"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>
#include <iterator>

#include "base/check.h"

namespace fovea {
namespace {

// A label's value between quotation marks.
std::string escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '\n') {
      escaped += "\\n";
      continue;
    }
    if (c == '"' || c == '\\') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

class PrometheusWriter {
 public:
  PrometheusWriter(std::string_view prefix, std::string_view model_name)
      : prefix_(prefix), model_(fmt::format("model_name=\"{}\"", escaped(model_name))) {}

  // Announces a metric; the samples that follow are its own.
  void begin(std::string_view type, std::string_view name, std::string_view help) {
    name_ = fmt::format("{}{}", prefix_, name);
    fmt::format_to(out(), "# HELP {0} {2}\n# TYPE {0} {1}\n", name_, type, help);
  }
  // `labels` as "a=\"b\"", or empty.
  template <class Number>
  void sample(std::string_view suffix, std::string_view labels, Number value) {
    fmt::format_to(out(), "{}{}{{{}{}{}}} {}\n", name_, suffix, model_, labels.empty() ? "" : ",",
                   labels, value);
  }

  void counter(std::string_view name, const Counter& counter, std::string_view help) {
    begin("counter", name, help);
    sample("", "", counter.value());
  }
  void gauge(std::string_view name, const Gauge& gauge, std::string_view help) {
    begin("gauge", name, help);
    sample("", "", gauge.value());
  }
  // The total is the sum of what was read: values that come in meanwhile cannot tear it.
  void histogram(std::string_view name, const Histogram& histogram, std::string_view help) {
    begin("histogram", name, help);
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < histogram.bounds().size(); ++i) {
      total += histogram.count(i);
      sample("_bucket", fmt::format("le=\"{}\"", histogram.bounds()[i]), total);
    }
    total += histogram.count(histogram.bounds().size());
    sample("_bucket", "le=\"+Inf\"", total);
    sample("_sum", "", histogram.sum());
    sample("_count", "", total);
  }

  std::string take() { return std::move(text_); }

 private:
  std::back_insert_iterator<std::string> out() { return std::back_inserter(text_); }

  std::string_view prefix_;
  std::string model_;
  std::string name_;
  std::string text_;
};

void write_requests(const Metrics& metrics, PrometheusWriter& writer) {
  writer.gauge("num_requests_running", metrics.requests_running, "Requests that are computed.");
  writer.gauge("num_requests_waiting", metrics.requests_waiting, "Requests in the queue.");
  writer.begin("counter", "request_success_total", "Answered requests, by why they ended.");
  for (const FinishReason reason : {FinishReason::kStop, FinishReason::kLength}) {
    writer.sample("", fmt::format("finished_reason=\"{}\"", finish_reason_name(reason)),
                  metrics.requests_finished[static_cast<std::size_t>(reason)].value());
  }
  writer.begin("counter", "requests_total",
               "Requests that ended, by skill; status is ok or the error's code.");
  for (std::size_t skill = 0; skill < kSkillNames.size(); ++skill) {
    for (std::size_t status = 0; status <= Metrics::kNumErrorCodes; ++status) {
      writer.sample(
          "",
          fmt::format("skill=\"{}\",status=\"{}\"", kSkillNames[skill],
                      status == 0 ? "ok" : error_code_name(static_cast<ErrorCode>(status - 1))),
          metrics.requests[skill][status].value());
    }
  }
  writer.begin("counter", "requests_rejected_total", "Requests that never ran, by reason.");
  for (std::size_t reason = 0; reason < kRejectionNames.size(); ++reason) {
    writer.sample("", fmt::format("reason=\"{}\"", kRejectionNames[reason]),
                  metrics.requests_rejected[reason].value());
  }
  writer.counter("num_preemptions_total", metrics.preemptions,
                 "Requests whose pages were taken for others.");
}

void write_memory(const Metrics& metrics, PrometheusWriter& writer) {
  writer.counter("prompt_tokens_total", metrics.prompt_tokens, "Prompt tokens, pictures included.");
  writer.counter("generation_tokens_total", metrics.generation_tokens, "Generated tokens.");
  writer.begin("gauge", "kv_cache_usage_perc", "Used share of the KV cache, 0 to 1.");
  const auto used = static_cast<double>(metrics.kv_pages_used.value());
  const auto pages = static_cast<double>(metrics.kv_pages.value());
  writer.sample("", "", pages > 0 ? used / pages : 0.0);
  writer.gauge("kv_cache_pages_used", metrics.kv_pages_used, "Used pages of the KV cache.");
  writer.gauge("kv_cache_pages", metrics.kv_pages, "Pages of the KV cache.");
  writer.counter("prefix_cache_queries_total", metrics.prefix_cache_queries,
                 "Prompt tokens looked up in the prefix cache.");
  writer.counter("prefix_cache_hits_total", metrics.prefix_cache_hits,
                 "Prompt tokens found in the prefix cache.");
  writer.counter("image_encodes_total", metrics.image_encodes, "Pictures encoded.");
  writer.counter("image_cache_hits_total", metrics.image_cache_hits,
                 "Pictures whose embeddings were at hand.");
  writer.counter("image_cache_misses_total", metrics.image_cache_misses,
                 "Pictures whose embeddings were not at hand.");
  writer.gauge("image_cache_bytes", metrics.image_cache_bytes, "Bytes of embeddings at hand.");
}

// As vLLM has it: the names are labels, the value is the time at which they were true.
void write_adapters(const Metrics& metrics, const AdapterReport& report, PrometheusWriter& writer) {
  writer.counter("adapter_loads_total", metrics.adapter_loads, "Adapters brought to the device.");
  writer.counter("adapter_load_failures_total", metrics.adapter_load_failures,
                 "Adapters that could not be brought to the device.");
  if (report.max_slots == 0) return;
  std::string running, waiting;
  const auto list = [](std::string& names, const std::string& name) {
    if (!names.empty()) names += ',';
    names += escaped(name);
  };
  for (const AdapterInfo& adapter : report.adapters) {
    if (adapter.num_running > 0) list(running, adapter.name);
    if (adapter.num_waiting > 0) list(waiting, adapter.name);
  }
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  writer.begin("gauge", "lora_requests_info", "Adapters of requests; the value is the Unix time.");
  writer.sample("",
                fmt::format("max_lora=\"{}\",running_lora_adapters=\"{}\","
                            "waiting_lora_adapters=\"{}\"",
                            report.max_slots, running, waiting),
                std::chrono::duration<double>(now).count());
}

void write_histograms(const Metrics& metrics, PrometheusWriter& writer) {
  writer.histogram("request_queue_time_seconds", metrics.queue_time, "Waiting for the device.");
  writer.histogram("image_prepare_seconds", metrics.image_prepare_time, "Decoding and cropping.");
  writer.histogram("image_encode_seconds", metrics.image_encode_time, "Vision encoder.");
  writer.histogram("request_prefill_time_seconds", metrics.prefill_time,
                   "Prompt, first token included.");
  writer.histogram("request_decode_time_seconds", metrics.decode_time, "Tokens after the first.");
  writer.histogram("time_to_first_token_seconds", metrics.time_to_first_token,
                   "From submission to the first token.");
  writer.histogram("inter_token_latency_seconds", metrics.inter_token_latency,
                   "Between two tokens of a request.");
  writer.histogram("e2e_request_latency_seconds", metrics.e2e_latency,
                   "From submission to the answer.");
  writer.histogram("request_prompt_tokens", metrics.request_prompt_tokens,
                   "Prompt tokens of a request.");
  writer.histogram("request_generation_tokens", metrics.request_generation_tokens,
                   "Generated tokens of a request.");
  writer.histogram("iteration_tokens_total", metrics.step_rows, "Tokens of a step.");
  writer.histogram("iteration_sequences", metrics.step_sequences, "Sequences of a step.");
  writer.histogram("iteration_crops", metrics.step_crops, "Crops of a pass of the vision encoder.");
}

}  // namespace

Histogram::Histogram(std::span<const double> bounds) : bounds_(bounds) {
  FOVEA_CHECK(bounds.size() <= kMaxBounds && std::is_sorted(bounds.begin(), bounds.end()),
              "{} bounds", bounds.size());
}

void Histogram::observe(double value) {
  value = std::max(0.0, value);
  const auto bound = std::lower_bound(bounds_.begin(), bounds_.end(), value);
  counts_[static_cast<std::size_t>(bound - bounds_.begin())].fetch_add(1,
                                                                       std::memory_order_relaxed);
  sum_.fetch_add(value, std::memory_order_relaxed);
}

void Metrics::count_answer(const SkillRequest& skill, const Response& response) {
  requests_finished[static_cast<std::size_t>(response.finish_reason)].add();
  requests[skill.index()][0].add();
  const Usage& usage = response.usage;
  prompt_tokens.add(static_cast<std::uint64_t>(usage.prompt_tokens));
  generation_tokens.add(static_cast<std::uint64_t>(usage.completion_tokens));
  request_prompt_tokens.observe(usage.prompt_tokens);
  request_generation_tokens.observe(usage.completion_tokens);
  constexpr double kSeconds = 1e-3;
  queue_time.observe(usage.queue_ms * kSeconds);
  // Requests without a picture, and those that found it in a cache, would only blur these two.
  if (usage.picture_ms > 0) image_prepare_time.observe(usage.picture_ms * kSeconds);
  if (usage.vision_ms > 0) image_encode_time.observe(usage.vision_ms * kSeconds);
  prefill_time.observe(usage.prefill_ms * kSeconds);
  decode_time.observe(usage.decode_ms * kSeconds);
  time_to_first_token.observe(usage.ttft_ms * kSeconds);
  e2e_latency.observe(usage.total_ms * kSeconds);
}

void Metrics::count_error(const SkillRequest& skill, ErrorCode code) {
  const auto status = std::min(1 + static_cast<std::size_t>(code), kNumErrorCodes);
  requests[skill.index()][status].add();
}

std::string write_prometheus(const Metrics& metrics, std::string_view model_name,
                             const AdapterReport& adapters, std::string_view prefix) {
  PrometheusWriter writer(prefix, model_name);
  write_requests(metrics, writer);
  write_memory(metrics, writer);
  write_adapters(metrics, adapters, writer);
  write_histograms(metrics, writer);
  return writer.take();
}

}  // namespace fovea
