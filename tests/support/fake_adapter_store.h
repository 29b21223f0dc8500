#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/adapter_store.h"

namespace fovea::testing_support {

/// Files and slots for adapters that are but a line of text. A path that was not written is not
/// found; uploads wait while the gate is shut.
class FakeAdapterStore final : public AdapterStore {
 public:
  explicit FakeAdapterStore(int num_slots) : slots_(static_cast<std::size_t>(num_slots)) {}

  void write(const std::string& path, const std::string& text) {
    const std::lock_guard lock(mutex_);
    files_[path] = text;
  }
  void remove(const std::string& path) {
    const std::lock_guard lock(mutex_);
    files_.erase(path);
  }
  void shut() {
    const std::lock_guard lock(mutex_);
    is_open_ = false;
  }
  void open() {
    const std::lock_guard lock(mutex_);
    is_open_ = true;
    opened_.notify_all();
  }
  int num_uploads() const {
    const std::lock_guard lock(mutex_);
    return num_uploads_;
  }
  /// Whether a slot counts, and holds that adapter.
  bool holds(int slot, const Sha256Digest& digest) const {
    const std::lock_guard lock(mutex_);
    const Slot& place = slots_[static_cast<std::size_t>(slot)];
    return place.is_enabled && place.digest == digest;
  }

  int num_slots() const override { return static_cast<int>(slots_.size()); }
  Result<AdapterContents> read(const std::filesystem::path& path) const override {
    const std::lock_guard lock(mutex_);
    const auto file = files_.find(path.string());
    if (file == files_.end()) return error(ErrorCode::kNotFound, "{} is not there", path.string());
    if (file->second == "broken") return invalid_argument("{} is broken", path.string());
    return AdapterContents{
        .rank = 1, .digest = Sha256().update(file->second).finish(), .weights = {}};
  }
  Status upload(int slot, const AdapterContents& contents) override {
    std::unique_lock lock(mutex_);
    opened_.wait(lock, [this] { return is_open_; });
    Slot& place = slots_[static_cast<std::size_t>(slot)];
    if (place.is_enabled) return error(ErrorCode::kInternal, "slot {} is in use", slot);
    place.digest = contents.digest;
    ++num_uploads_;
    return {};
  }
  void enable(int slot, const AdapterContents&) noexcept override {
    const std::lock_guard lock(mutex_);
    slots_[static_cast<std::size_t>(slot)].is_enabled = true;
  }
  void disable(int slot) noexcept override {
    const std::lock_guard lock(mutex_);
    slots_[static_cast<std::size_t>(slot)].is_enabled = false;
  }

 private:
  struct Slot {
    bool is_enabled = false;
    Sha256Digest digest{};
  };

  mutable std::mutex mutex_;
  std::condition_variable opened_;
  std::map<std::string, std::string> files_;
  std::vector<Slot> slots_;
  bool is_open_ = true;
  int num_uploads_ = 0;
};

}  // namespace fovea::testing_support
