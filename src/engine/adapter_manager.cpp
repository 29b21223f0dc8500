#include "engine/adapter_manager.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/guard.h"
#include "base/try.h"

namespace fovea {

AdapterManager::AdapterManager(AdapterStore* store, Inbox& inbox, Metrics& metrics, Events events)
    : store_(store),
      inbox_(inbox),
      metrics_(metrics),
      events_(std::move(events)),
      residency_(store == nullptr ? 0 : store->num_slots()),
      loader_(std::make_unique<TaskQueue>(1)) {}

AdapterManager::~AdapterManager() = default;

Status AdapterManager::load(const std::string& name, const std::filesystem::path& path) {
  if (name.empty()) return invalid_argument("the adapter {} has no name", path.string());
  if (store_ == nullptr) {
    return error(ErrorCode::kFailedPrecondition,
                 "the engine was made without room for adapters (adapter_slots is 0)");
  }
  FOVEA_TRY(AdapterContents contents, store_->read(path));
  return add(name, path, std::move(contents));
}

Status AdapterManager::add(const std::string& name, const std::filesystem::path& path,
                           AdapterContents contents) {
  const auto entry = std::make_shared<AdapterEntry>();
  entry->name = name;
  entry->path = path;
  entry->rank = contents.rank;
  entry->digest = contents.digest;
  entry->contents = std::make_shared<const AdapterContents>(std::move(contents));
  const auto before = std::make_shared<std::list<AdapterHandle>>(1);
  const auto letter = std::make_shared<Inbox::Letter>([this, entry, before] {
    if (before->front() != nullptr) retired_.splice(retired_.end(), *before);
    (void)guarded([&] { residency_.offer(entry); });
    // What goes into no slot now is read again when somebody asks for it.
    if (!entry->is_wanted) entry->contents.reset();
  });
  {
    const std::lock_guard lock(mutex_);
    AdapterHandle& place = names_[name];
    entry->id = next_id_++;
    before->front() = std::exchange(place, entry);
  }
  inbox_.send(letter);
  return {};
}

Status AdapterManager::unload(const std::string& name) {
  const auto entry = std::make_shared<std::list<AdapterHandle>>(1);
  const auto letter =
      std::make_shared<Inbox::Letter>([this, entry] { retired_.splice(retired_.end(), *entry); });
  {
    const std::lock_guard lock(mutex_);
    const auto found = names_.find(name);
    if (found == names_.end()) {
      return error(ErrorCode::kNotFound, "there is no adapter named {}", name);
    }
    entry->front() = std::move(found->second);
    names_.erase(found);
  }
  inbox_.send(letter);
  return {};
}

Result<AdapterUse> AdapterManager::find(const std::string& name) const {
  if (name.empty()) return AdapterUse();
  const std::lock_guard lock(mutex_);
  const auto found = names_.find(name);
  if (found == names_.end()) {
    return error(ErrorCode::kNotFound, "there is no adapter named {}", name);
  }
  return AdapterUse(found->second);
}

std::vector<AdapterInfo> AdapterManager::list() const {
  std::vector<AdapterInfo> infos;
  const std::lock_guard lock(mutex_);
  for (const auto& [name, entry] : names_) {
    const int inside = entry->num_requests, running = entry->num_running;
    infos.push_back({.name = name,
                     .path = entry->path,
                     .rank = entry->rank,
                     .slot = entry->slot,
                     .num_running = running,
                     .num_waiting = std::max(0, inside - running)});
  }
  return infos;
}

void AdapterManager::advance() {
  while (std::optional<AdapterResidency::Fetch> next = residency_.next_fetch()) fetch(*next);
  std::erase_if(retired_, [this](const AdapterHandle& entry) {
    if (entry->num_requests > 0 || entry->is_loading) return false;
    if (const int slot = residency_.remove(*entry); slot >= 0) store_->disable(slot);
    events_.forgotten(entry->id);
    return true;
  });
}

void AdapterManager::fetch(const AdapterResidency::Fetch& fetch) {
  store_->disable(fetch.slot);
  const Status started = guarded([&] {
    auto contents = std::make_shared<std::optional<Result<AdapterContents>>>();
    auto letter =
        std::make_shared<Inbox::Letter>([this, fetch, contents] { fetched(fetch, **contents); });
    loader_->post([this, fetch, contents, read = std::move(fetch.entry->contents),
                   letter = std::move(letter)]() mutable {
      contents->emplace(guarded<AdapterContents>([&] { return bring(fetch, read); }));
      inbox_.send(std::move(letter));
    });
  });
  if (!started.ok()) fetch_failed(fetch, started.error());
}

// On the loader's thread: from the file, unless it has been read just now, to the slot.
Result<AdapterContents> AdapterManager::bring(
    const AdapterResidency::Fetch& fetch,
    const std::shared_ptr<const AdapterContents>& contents) const {
  const AdapterEntry& entry = *fetch.entry;
  AdapterContents bringing;
  if (contents != nullptr) {
    bringing = *contents;
  } else {
    FOVEA_TRY(bringing, store_->read(entry.path));
  }
  if (bringing.digest != entry.digest) {
    return error(ErrorCode::kFailedPrecondition,
                 "the file {} of the adapter {} has changed since it was loaded; load it again",
                 entry.path.string(), entry.name);
  }
  FOVEA_TRY_STATUS(store_->upload(fetch.slot, bringing));
  return bringing;
}

void AdapterManager::fetched(const AdapterResidency::Fetch& fetch,
                             const Result<AdapterContents>& contents) {
  if (!contents.ok()) return fetch_failed(fetch, contents.error());
  store_->enable(fetch.slot, *contents);
  residency_.loaded(fetch);
  metrics_.adapter_loads.add();
}

void AdapterManager::fetch_failed(const AdapterResidency::Fetch& fetch, const Error& failure) {
  residency_.failed(fetch);
  metrics_.adapter_load_failures.add();
  events_.failed(*fetch.entry, failure);
}

}  // namespace fovea
