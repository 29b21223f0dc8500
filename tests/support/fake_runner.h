#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>

#include "base/error.h"
#include "engine/step_runner.h"
#include "support/fake_adapter_store.h"

namespace fovea::testing_support {

/// Stands in for a model: checks that every step reads only what steps before it have written, and
/// draws tokens that depend on everything the sequence holds, so that a wrong page shows.
///
/// A slot of the pool remembers a digest of the sequence up to its position. The token drawn after
/// a position follows from its digest and the seed alone: an answer that depends on who shared the
/// step, on a cache hit or on pre-emption differs from the answer of the request alone.
class FakeRunner final : public StepRunner {
 public:
  FakeRunner(int depth, int page_size, int vocab_size, const FakeAdapterStore* adapters = nullptr)
      : depth_(depth), page_size_(page_size), vocab_size_(vocab_size), adapters_(adapters) {}

  int depth() const override { return depth_; }

  Status launch(const StepPlan& plan) override {
    hold();
    ++num_launched;
    if (fail_launch && fail_launch(plan))
      return error(ErrorCode::kDeviceLost, "a fault was injected");
    if (fail_launch_with) {
      if (Status failed = fail_launch_with(plan); !failed.ok()) return failed;
    }
    for (const Sequence::PageCopy& copy : plan.copies) {
      for (int offset = 0; offset < page_size_; ++offset) {
        digests_[copy.to.value() * page_size_ + offset] =
            digests_[copy.from.value() * page_size_ + offset];
      }
    }
    StepOutput output;
    output.vision_ms = 0.001 * plan.num_crops;
    output.text_ms = 0.001 * plan.num_rows;
    for (const PlannedCrops& crops : plan.crops) {
      num_crops += crops.count;
      if (no_memory_for && no_memory_for(*crops.picture)) {
        crops.picture->failure = Error{ErrorCode::kResourceExhausted, "no device memory"};
        continue;
      }
      if (crops.is_last) {
        crops.picture->encoded =
            std::make_shared<const EncodedImage>(EncodedImage{crops.picture->identity, {}});
      }
    }
    largest_batch = std::max(largest_batch.load(), static_cast<int>(plan.rows.size()));
    for (const PlannedRows& rows : plan.rows) run(rows, output);
    steps_.push_back(std::move(output));
    return {};
  }

  Result<StepOutput> collect() override {
    if (fail_collect && fail_collect()) {
      steps_.pop_front();
      return error(ErrorCode::kDeviceLost, "a fault was injected");
    }
    StepOutput output = std::move(steps_.front());
    steps_.pop_front();
    return output;
  }

  // A picture's embeddings are its identity.
  Result<std::shared_ptr<const EncodedImage>> upload(const ImageIdentity& identity,
                                                     const HostEmbeddings& embeddings) override {
    if (!std::ranges::equal(identity, embeddings.bytes)) misread = true;
    return std::make_shared<const EncodedImage>(EncodedImage{identity, {}});
  }
  Result<HostEmbeddings> download(const EncodedImage& image) override {
    return HostEmbeddings{DType::kF32, Shape{1, 8}, {image.identity.begin(), image.identity.end()}};
  }

  /// Nothing runs until open() is called.
  void close() {
    const std::lock_guard lock(mutex_);
    is_open_ = false;
  }
  void open() {
    const std::lock_guard lock(mutex_);
    is_open_ = true;
    opened_.notify_all();
  }

  std::atomic<int> num_prompt_rows = 0;  ///< positions of prompts that were computed
  std::atomic<int> num_fed_back = 0, num_wrong_guesses = 0;
  std::atomic<int> num_launched = 0, num_crops = 0, largest_batch = 0;
  std::atomic<bool> misread = false;  ///< a position was computed over others that were not there
  std::function<bool(const StepPlan&)> fail_launch;
  std::function<bool()> fail_collect;
  std::function<Status(const StepPlan&)> fail_launch_with;  ///< may throw
  std::function<bool(const PictureJob&)> no_memory_for;

 private:
  void hold() {
    std::unique_lock lock(mutex_);
    opened_.wait(lock, [this] { return is_open_; });
  }

  static std::uint64_t mix(std::uint64_t hash, std::uint64_t value) {
    hash = (hash ^ value) * 0x9e3779b97f4a7c15ull;
    return hash ^ (hash >> 29);
  }

  // What the adapter adds to the model; its slot must hold it.
  std::uint64_t adapter_of(const Generation& generation) {
    if (generation.adapter == nullptr) return 0;
    const Sha256Digest& digest = generation.adapter->digest;
    if (!adapters_->holds(generation.adapter_slot, digest)) misread = true;
    std::uint64_t word = 0;
    std::memcpy(&word, digest.data(), sizeof(word));
    return word;
  }

  void run(const PlannedRows& rows, StepOutput& output) {
    const Sequence& sequence = *rows.generation->sequence;
    const std::uint64_t adapter = adapter_of(*rows.generation);
    std::uint64_t digest = 1;
    int position = 0;
    std::vector<PrefixKey> keys(sequence.keys().begin(), sequence.keys().end());
    if (rows.feeds_back) keys.push_back(fed_key(rows));
    for (const PrefixKey& key : keys) {
      if (position >= rows.end) break;
      digest = mix(digest, PrefixKeyHash{}(key));
      digest = mix(digest, adapter);
      for (int i = 0; i < key.span; ++i, ++position) {
        const int slot = sequence.slot_of(position);
        if (position < rows.begin) {
          if (digests_[slot] != digest) misread = true;
        } else {
          digests_[slot] = digest;
        }
      }
    }
    if (sequence.prefix_len() > 0 && rows.begin < sequence.prefix_len() &&
        (rows.begin != 0 || rows.end < sequence.prefix_len() || sequence.image() == nullptr)) {
      misread = true;
    }
    num_prompt_rows += std::max(0, std::min(rows.end, sequence.prompt_len()) - rows.begin);
    if (!rows.samples) return;
    const std::uint64_t draw =
        mix(mix(digest, rows.generation->sampling.seed), static_cast<std::uint64_t>(rows.draw));
    // A few words stand for coordinates.
    TokenId id{static_cast<std::int32_t>(draw % static_cast<std::uint64_t>(vocab_size_))};
    if (!rows.rule.allowed.empty()) id = rows.rule.allowed[draw % rows.rule.allowed.size()];
    Token token = Token::text(id);
    if (rows.rule.slot == TokenRule::Slot::kById && id.value() % 11 == 10) {
      token = Token::coord(id, static_cast<float>(draw % 1000) / 1000);
    }
    sampled_[rows.order] = token;
    output.tokens.push_back({.token = token});
  }

  // The token that is still on the device, read as the kind that the loop takes it for: one of
  // another kind gives nonsense.
  PrefixKey fed_key(const PlannedRows& rows) {
    ++num_fed_back;
    const Token& token = sampled_.at(rows.order);
    PrefixKey key = PrefixKey::of(token);
    if (token.kind != rows.fed_kind) {
      ++num_wrong_guesses;
      key.id = -12345;
    }
    return key;
  }

  int depth_, page_size_, vocab_size_;
  const FakeAdapterStore* adapters_;
  std::map<int, std::uint64_t> digests_;
  std::map<std::uint64_t, Token> sampled_;  // last, by generation
  std::deque<StepOutput> steps_;
  std::mutex mutex_;
  std::condition_variable opened_;
  bool is_open_ = true;
};

}  // namespace fovea::testing_support
