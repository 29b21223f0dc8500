#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "fovea/engine.h"
#include "fovea/request.h"
#include "fovea/response.h"
#include "fovea/result.h"

namespace fovea {

/// A number that only grows. Any thread, without locks.
class Counter {
 public:
  void add(std::uint64_t amount = 1) { value_.fetch_add(amount, std::memory_order_relaxed); }
  std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

/// A number as it stands. Any thread, without locks.
class Gauge {
 public:
  void set(std::int64_t value) { value_.store(value, std::memory_order_relaxed); }
  std::int64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::int64_t> value_{0};
};

/// How often values fell between fixed bounds. Any thread, without locks.
class Histogram {
 public:
  static constexpr std::size_t kMaxBounds = 20;

  /// Ascending upper bounds, at most kMaxBounds, each belonging to its own bucket. Outlive this.
  explicit Histogram(std::span<const double> bounds);

  /// Values below 0, and what is no number, count as 0.
  void observe(double value);

  std::span<const double> bounds() const { return bounds_; }
  /// Values above the bound before `bucket` and up to its own; the last bucket has no bound.
  std::uint64_t count(std::size_t bucket) const {
    return counts_[bucket].load(std::memory_order_relaxed);
  }
  double sum() const { return sum_.load(std::memory_order_relaxed); }

 private:
  std::span<const double> bounds_;
  std::array<std::atomic<std::uint64_t>, kMaxBounds + 1> counts_{};
  std::atomic<double> sum_{0};
};

/// Upper bounds of times in seconds, of tokens of a request, and of what one step holds.
inline constexpr std::array kTimeBounds{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,  0.25,
                                        0.5,   1.0,    2.5,   5.0,  10.0,  25.0, 60.0, 150.0};
inline constexpr std::array kTokenBounds{1.0,   2.0,   5.0,   10.0,   20.0,  50.0,
                                         100.0, 200.0, 500.0, 1000.0, 2000.0};
inline constexpr std::array kBatchBounds{1.0,  2.0,   4.0,   8.0,   16.0,   32.0,
                                         64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0};

/// Skills by the index of SkillRequest.
inline constexpr std::array<std::string_view, std::variant_size_v<SkillRequest>> kSkillNames{
    "caption", "query", "detect", "point"};
inline std::string_view skill_name(const SkillRequest& skill) { return kSkillNames[skill.index()]; }

/// Why a request never ran.
enum class Rejection { kInvalid, kQueueFull, kTooLarge, kShuttingDown };
inline constexpr std::array<std::string_view, 4> kRejectionNames{"invalid", "queue_full",
                                                                 "too_large", "shutting_down"};

/// Everything that the engine counts. Members are updated where things happen, each on its own;
/// write_prometheus() shows them under the names in comments. Any thread.
struct Metrics {
  static constexpr std::size_t kNumErrorCodes = static_cast<std::size_t>(ErrorCode::kInternal) + 1;

  /// A request that was answered: its counts by skill and reason, its tokens, its times.
  void count_answer(const SkillRequest& skill, const Response& response);
  /// A request that ended without an answer; kCancelled when the caller stopped it.
  void count_error(const SkillRequest& skill, ErrorCode code);
  void count_rejection(Rejection reason) {
    requests_rejected[static_cast<std::size_t>(reason)].add();
  }

  // Requests
  Gauge requests_running;                              ///< num_requests_running
  Gauge requests_waiting;                              ///< num_requests_waiting
  std::array<Counter, 2> requests_finished;            ///< request_success_total
  std::array<std::array<Counter, 1 + kNumErrorCodes>,  // answered, then by error code
             std::variant_size_v<SkillRequest>>
      requests;                                                   ///< requests_total
  std::array<Counter, kRejectionNames.size()> requests_rejected;  ///< requests_rejected_total
  Counter preemptions;                                            ///< num_preemptions_total

  // Tokens and pages
  Counter prompt_tokens;         ///< prompt_tokens_total
  Counter generation_tokens;     ///< generation_tokens_total
  Gauge kv_pages_used;           ///< kv_cache_pages_used; with kv_pages: kv_cache_usage_perc
  Gauge kv_pages;                ///< kv_cache_pages
  Counter prefix_cache_queries;  ///< prefix_cache_queries_total: prompt tokens looked up
  Counter prefix_cache_hits;     ///< prefix_cache_hits_total: those that were found

  Counter adapter_loads;          ///< adapter_loads_total: into slots
  Counter adapter_load_failures;  ///< adapter_load_failures_total

  // Pictures
  Counter image_encodes;       ///< image_encodes_total: runs of the vision encoder
  Counter image_cache_hits;    ///< image_cache_hits_total
  Counter image_cache_misses;  ///< image_cache_misses_total
  Gauge image_cache_bytes;     ///< image_cache_bytes

  // Times in seconds
  Histogram queue_time{kTimeBounds};           ///< request_queue_time_seconds
  Histogram image_prepare_time{kTimeBounds};   ///< image_prepare_seconds: decoding and cropping
  Histogram image_encode_time{kTimeBounds};    ///< image_encode_seconds
  Histogram prefill_time{kTimeBounds};         ///< request_prefill_time_seconds
  Histogram decode_time{kTimeBounds};          ///< request_decode_time_seconds
  Histogram time_to_first_token{kTimeBounds};  ///< time_to_first_token_seconds
  Histogram inter_token_latency{kTimeBounds};  ///< inter_token_latency_seconds: each later token
  Histogram e2e_latency{kTimeBounds};          ///< e2e_request_latency_seconds

  // Sizes
  Histogram request_prompt_tokens{kTokenBounds};      ///< request_prompt_tokens
  Histogram request_generation_tokens{kTokenBounds};  ///< request_generation_tokens
  Histogram step_rows{kBatchBounds};                  ///< iteration_tokens_total
  Histogram step_sequences{kBatchBounds};             ///< iteration_sequences
  Histogram step_crops{kBatchBounds};                 ///< iteration_crops: of one vision pass
};

/// Adapters as they stand, for lora_requests_info.
struct AdapterReport {
  int max_slots = 0;  ///< 0: there are none, and nothing is written
  std::vector<AdapterInfo> adapters{};
};

/// All metrics as Prometheus text (format 0.0.4), each labelled with the model's name. The names
/// are vLLM's where it has one, behind `prefix` (letters, digits, '_' and ':'), so that with
/// "vllm:" boards made for it work. Numbers are read one after the other while others count on;
/// inside a histogram they agree.
std::string write_prometheus(const Metrics& metrics, std::string_view model_name,
                             const AdapterReport& adapters = {},
                             std::string_view prefix = "fovea_");

}  // namespace fovea
