#include "engine/metrics.h"

#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <map>
#include <regex>
#include <sstream>
#include <thread>
#include <vector>

namespace fovea {
namespace {

// Reads Prometheus text as strictly as the format is written down: a metric is announced by HELP
// and TYPE once, its samples follow at once, and histograms are cumulative and complete.
class PrometheusText {
 public:
  explicit PrometheusText(const std::string& text) {
    EXPECT_TRUE(text.ends_with('\n'));
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) read_line(line);
    check_histogram();
  }

  const std::map<std::string, std::string>& types() const { return types_; }
  /// The value of "name{labels}", model name left out; NaN when it is not there.
  double value(const std::string& sample) const {
    const auto found = values_.find(sample);
    return found == values_.end() ? std::nan("") : found->second;
  }

 private:
  void read_line(const std::string& line) {
    static const std::regex kHelp("# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) .+");
    static const std::regex kType("# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram)");
    static const std::regex kSample(
        R"re(([a-zA-Z_:][a-zA-Z0-9_:]*)\{model_name="((?:[^"\\\n]|\\["\\n])*)",?((?:[a-z_]+="[^"]*",?)*)\} (\S+))re");
    std::smatch match;
    if (std::regex_match(line, match, kHelp)) {
      check_histogram();
      helped_ = match[1];
    } else if (std::regex_match(line, match, kType)) {
      EXPECT_EQ(match[1], helped_);
      name_ = match[1];
      EXPECT_TRUE(types_.emplace(name_, match[2]).second) << name_ << " is announced twice";
    } else if (std::regex_match(line, match, kSample)) {
      read_sample(match[1], match[3], match[4]);
    } else {
      ADD_FAILURE() << "not a line of Prometheus text: " << line;
    }
  }

  void read_sample(const std::string& name, const std::string& labels, const std::string& number) {
    std::size_t used = 0;
    const double value = std::stod(number, &used);
    EXPECT_EQ(used, number.size()) << number;
    EXPECT_TRUE(values_.emplace(name + "{" + labels + "}", value).second) << name << labels;
    if (types_[name_] == "histogram") {
      ASSERT_TRUE(name.starts_with(name_)) << name;
      const std::string suffix = name.substr(name_.size());
      if (suffix == "_bucket") {
        ASSERT_TRUE(labels.starts_with("le=\"") && labels.ends_with("\"")) << labels;
        const std::string bound = labels.substr(4, labels.size() - 5);
        buckets_.emplace_back(
            bound == "+Inf" ? std::numeric_limits<double>::infinity() : std::stod(bound), value);
      } else if (suffix == "_count") {
        count_ = value;
      } else {
        EXPECT_EQ(suffix, "_sum");
        has_sum_ = true;
      }
    } else {
      EXPECT_EQ(name, name_);
      EXPECT_EQ(types_[name_] == "counter", name.ends_with("_total")) << name;
    }
  }

  void check_histogram() {
    if (!name_.empty() && types_[name_] == "histogram") {
      ASSERT_FALSE(buckets_.empty()) << name_;
      for (std::size_t i = 1; i < buckets_.size(); ++i) {
        EXPECT_LT(buckets_[i - 1].first, buckets_[i].first) << name_;
        EXPECT_LE(buckets_[i - 1].second, buckets_[i].second) << name_;
      }
      EXPECT_TRUE(std::isinf(buckets_.back().first)) << name_;
      EXPECT_EQ(buckets_.back().second, count_) << name_;
      EXPECT_TRUE(has_sum_) << name_;
    }
    name_.clear();
    buckets_.clear();
    count_ = std::nan("");
    has_sum_ = false;
  }

  std::map<std::string, std::string> types_;
  std::map<std::string, double> values_;
  std::string helped_, name_;
  std::vector<std::pair<double, double>> buckets_;
  double count_ = std::nan("");
  bool has_sum_ = false;
};

TEST(Metrics, NamesAreThoseOfVllmBehindAPrefix) {
  const PrometheusText text(write_prometheus(Metrics{}, "m", {}, "vllm:"));
  const std::map<std::string, std::string> expected{
      {"vllm:num_requests_running", "gauge"},
      {"vllm:num_requests_waiting", "gauge"},
      {"vllm:kv_cache_usage_perc", "gauge"},
      {"vllm:prompt_tokens_total", "counter"},
      {"vllm:generation_tokens_total", "counter"},
      {"vllm:request_success_total", "counter"},
      {"vllm:prefix_cache_queries_total", "counter"},
      {"vllm:prefix_cache_hits_total", "counter"},
      {"vllm:num_preemptions_total", "counter"},
      {"vllm:time_to_first_token_seconds", "histogram"},
      {"vllm:inter_token_latency_seconds", "histogram"},
      {"vllm:e2e_request_latency_seconds", "histogram"},
      {"vllm:request_queue_time_seconds", "histogram"},
      {"vllm:request_prefill_time_seconds", "histogram"},
      {"vllm:request_decode_time_seconds", "histogram"},
      {"vllm:request_prompt_tokens", "histogram"},
      {"vllm:request_generation_tokens", "histogram"},
      {"vllm:iteration_tokens_total", "histogram"},
  };
  for (const auto& [name, type] : expected) {
    ASSERT_TRUE(text.types().contains(name)) << name;
    EXPECT_EQ(text.types().at(name), type) << name;
  }
}

TEST(Metrics, AnAnswerCountsOnceEverywhere) {
  Metrics metrics;
  Response response;
  response.finish_reason = FinishReason::kLength;
  response.usage = {.prompt_tokens = 735,
                    .completion_tokens = 9,
                    .queue_ms = 3,
                    .picture_ms = 20,
                    .vision_ms = 400,
                    .prefill_ms = 100,
                    .decode_ms = 900,
                    .ttft_ms = 523,
                    .total_ms = 1500};
  metrics.count_answer(QueryRequest{}, response);
  const PrometheusText text(write_prometheus(metrics, "m"));
  EXPECT_EQ(text.value("fovea_request_success_total{finished_reason=\"length\"}"), 1);
  EXPECT_EQ(text.value("fovea_request_success_total{finished_reason=\"stop\"}"), 0);
  EXPECT_EQ(text.value("fovea_requests_total{skill=\"query\",status=\"ok\"}"), 1);
  EXPECT_EQ(text.value("fovea_prompt_tokens_total{}"), 735);
  EXPECT_EQ(text.value("fovea_generation_tokens_total{}"), 9);
  EXPECT_DOUBLE_EQ(text.value("fovea_e2e_request_latency_seconds_sum{}"), 1.5);
  EXPECT_EQ(text.value("fovea_e2e_request_latency_seconds_bucket{le=\"1\"}"), 0);
  EXPECT_EQ(text.value("fovea_e2e_request_latency_seconds_bucket{le=\"2.5\"}"), 1);
  EXPECT_EQ(text.value("fovea_image_encode_seconds_count{}"), 1);
  EXPECT_DOUBLE_EQ(text.value("fovea_time_to_first_token_seconds_sum{}"), 0.523);
}

TEST(Metrics, AnAnswerWithoutAPictureHasNoPictureTimes) {
  Metrics metrics;
  metrics.count_answer(QueryRequest{}, {});
  const PrometheusText text(write_prometheus(metrics, "m"));
  EXPECT_EQ(text.value("fovea_image_encode_seconds_count{}"), 0);
  EXPECT_EQ(text.value("fovea_image_prepare_seconds_count{}"), 0);
  EXPECT_EQ(text.value("fovea_e2e_request_latency_seconds_count{}"), 1);
}

TEST(Metrics, ErrorsCountBySkillAndCode) {
  Metrics metrics;
  metrics.count_error(DetectRequest{}, ErrorCode::kCancelled);
  metrics.count_error(DetectRequest{}, ErrorCode::kInternal);
  metrics.count_error(DetectRequest{}, ErrorCode::kInternal);
  metrics.count_rejection(Rejection::kQueueFull);
  const PrometheusText text(write_prometheus(metrics, "m"));
  EXPECT_EQ(text.value("fovea_requests_total{skill=\"detect\",status=\"cancelled\"}"), 1);
  EXPECT_EQ(text.value("fovea_requests_total{skill=\"detect\",status=\"internal\"}"), 2);
  EXPECT_EQ(text.value("fovea_requests_total{skill=\"detect\",status=\"ok\"}"), 0);
  EXPECT_EQ(text.value("fovea_requests_total{skill=\"point\",status=\"cancelled\"}"), 0);
  EXPECT_EQ(text.value("fovea_requests_rejected_total{reason=\"queue_full\"}"), 1);
}

TEST(Metrics, CacheUsageIsAShare) {
  Metrics metrics;
  EXPECT_EQ(PrometheusText(write_prometheus(metrics, "m")).value("fovea_kv_cache_usage_perc{}"), 0);
  metrics.kv_pages.set(8);
  metrics.kv_pages_used.set(2);
  EXPECT_EQ(PrometheusText(write_prometheus(metrics, "m")).value("fovea_kv_cache_usage_perc{}"),
            0.25);
}

TEST(Metrics, OddModelNamesStayInsideTheirQuotationMarks) {
  const std::string text = write_prometheus(Metrics{}, "a \"b\"\\c\nd");
  EXPECT_NE(text.find(R"re(model_name="a \"b\"\\c\nd")re"), std::string::npos);
  const PrometheusText parsed(text);
  EXPECT_EQ(parsed.value("fovea_num_requests_running{}"), 0);
}

TEST(Histogram, ABoundBelongsToItsOwnBucket) {
  static constexpr std::array kBounds{1.0, 2.0};
  Histogram histogram(kBounds);
  for (const double value : {0.5, 1.0, 1.5, 2.0, 2.5, -1.0, std::nan("")}) histogram.observe(value);
  EXPECT_EQ(histogram.count(0), 4u);
  EXPECT_EQ(histogram.count(1), 2u);
  EXPECT_EQ(histogram.count(2), 1u);
  EXPECT_DOUBLE_EQ(histogram.sum(), 7.5);
}

TEST(Metrics, NothingIsLostOrTornWhileSeveralThreadsCount) {
  Metrics metrics;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([&metrics] {
        for (int n = 0; n < 5000; ++n) {
          metrics.generation_tokens.add();
          metrics.inter_token_latency.observe(n % 2 == 0 ? 0.004 : 0.5);
        }
      });
    }
    for (int i = 0; i < 20; ++i) PrometheusText(write_prometheus(metrics, "m"));
  }
  const PrometheusText text(write_prometheus(metrics, "m"));
  EXPECT_EQ(text.value("fovea_generation_tokens_total{}"), 15000);
  EXPECT_EQ(text.value("fovea_inter_token_latency_seconds_count{}"), 15000);
  EXPECT_EQ(text.value("fovea_inter_token_latency_seconds_bucket{le=\"0.005\"}"), 7500);
}

}  // namespace
}  // namespace fovea
