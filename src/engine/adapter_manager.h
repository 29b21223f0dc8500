#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "fovea/engine.h"
#include "fovea/result.h"

#include "base/task_queue.h"
#include "engine/adapter_residency.h"
#include "engine/adapter_store.h"
#include "engine/inbox.h"
#include "engine/metrics.h"

namespace fovea {

/// An adapter that a request inside the engine names: it is not forgotten before the request has
/// ended, whatever becomes of the name. Move-only.
class AdapterUse {
 public:
  AdapterUse() = default;
  /// Counts itself in entry->num_requests.
  explicit AdapterUse(AdapterHandle entry) : entry_(std::move(entry)) { ++entry_->num_requests; }
  AdapterUse(AdapterUse&& other) noexcept : entry_(std::move(other.entry_)) {}
  AdapterUse& operator=(AdapterUse&& other) noexcept {
    std::swap(entry_, other.entry_);
    return *this;
  }
  ~AdapterUse() {
    if (entry_ != nullptr) --entry_->num_requests;
  }

  /// Null: no adapter.
  const AdapterHandle& entry() const { return entry_; }
  std::int32_t id() const { return entry_ == nullptr ? kNoAdapter : entry_->id; }

 private:
  AdapterHandle entry_;
};

/// The engine's adapters: names that come and go while requests run, and the loads that bring them
/// to the device when they are needed, on a thread of their own. An adapter whose name is taken
/// away or given to another stays until the requests that were submitted with it have ended.
class AdapterManager {
 public:
  struct Events {
    /// An adapter that requests wait for could not be brought to the device.
    std::function<void(const AdapterEntry& entry, const Error& failure)> failed;
    /// Nobody can ask for this adapter any more: its cached beginnings are worth nothing.
    std::function<void(std::int32_t id)> forgotten;
  };

  /// `store` may be null: then there is no room for adapters. All references must outlive the
  /// manager; events come on the engine thread.
  AdapterManager(AdapterStore* store, Inbox& inbox, Metrics& metrics, Events events);
  /// Waits for a load that is running.
  ~AdapterManager();
  AdapterManager(const AdapterManager&) = delete;
  AdapterManager& operator=(const AdapterManager&) = delete;

  // ---- any thread

  /// Reads an adapter, on the calling thread, and gives it the name. Errors: those of
  /// AdapterStore::read; kInvalidArgument for an empty name; kFailedPrecondition when there is no
  /// room for adapters at all.
  Status load(const std::string& name, const std::filesystem::path& path);
  /// The same for an adapter that has been read.
  Status add(const std::string& name, const std::filesystem::path& path, AdapterContents contents);
  /// Takes a name away. Error: kNotFound.
  Status unload(const std::string& name);
  /// The adapter of that name, for a request; none for an empty name. Error: kNotFound.
  Result<AdapterUse> find(const std::string& name) const;
  std::vector<AdapterInfo> list() const;
  int num_slots() const { return store_ == nullptr ? 0 : store_->num_slots(); }

  // ---- engine thread

  AdapterResidency& residency() { return residency_; }
  /// Starts the loads for which there are slots, and forgets what nobody can ask for any more.
  void advance();

 private:
  void fetch(const AdapterResidency::Fetch& fetch);
  void fetched(const AdapterResidency::Fetch& fetch, const Result<AdapterContents>& contents);
  void fetch_failed(const AdapterResidency::Fetch& fetch, const Error& failure);
  Result<AdapterContents> bring(const AdapterResidency::Fetch& fetch,
                                const std::shared_ptr<const AdapterContents>& contents) const;

  AdapterStore* store_;
  Inbox& inbox_;
  Metrics& metrics_;
  Events events_;
  AdapterResidency residency_;

  mutable std::mutex mutex_;  // guards the two below
  std::map<std::string, AdapterHandle> names_;
  std::int32_t next_id_ = 0;

  std::list<AdapterHandle> retired_;   // engine thread: without a name, perhaps in use
  std::unique_ptr<TaskQueue> loader_;  // last: it stops first
};

}  // namespace fovea
