#include "engine/adapter_residency.h"

#include <algorithm>

#include "base/check.h"

namespace fovea {

bool AdapterResidency::is_ready(const AdapterHandle& entry) {
  const int slot = entry->slot;
  if (slot >= 0 && !slots_[static_cast<std::size_t>(slot)].is_closed) return true;
  if (entry->is_loading || entry->is_wanted) return false;
  wanted_.push_back(entry);
  entry->is_wanted = true;
  return false;
}

void AdapterResidency::pin(AdapterEntry& entry) noexcept {
  FOVEA_CHECK(entry.slot >= 0, "the adapter {} is in no slot", entry.name);
  entry.last_used = ++tick_;
  ++entry.num_running;
}

void AdapterResidency::unpin(AdapterEntry& entry) noexcept {
  FOVEA_CHECK(entry.num_running > 0, "the adapter {} is not in use", entry.name);
  entry.last_used = ++tick_;
  --entry.num_running;
}

void AdapterResidency::offer(const AdapterHandle& entry) {
  const auto is_empty = [](const Slot& slot) { return slot.entry == nullptr; };
  if (std::ranges::count_if(slots_, is_empty) > std::ssize(wanted_)) (void)is_ready(entry);
}

// An empty slot, or the one not used for longest that nobody runs with. If there is none, one that
// is in use is closed for each adapter in line.
std::optional<int> AdapterResidency::find_slot() {
  std::ptrdiff_t num_closed = 0;
  int oldest = -1, oldest_open = -1;
  const auto is_older = [this](const Slot& slot, int than) {
    return than < 0 ||
           slot.entry->last_used < slots_[static_cast<std::size_t>(than)].entry->last_used;
  };
  for (int i = 0; i < static_cast<int>(slots_.size()); ++i) {
    const Slot& slot = slots_[static_cast<std::size_t>(i)];
    if (slot.entry == nullptr) return i;
    if (slot.entry->is_loading) continue;
    num_closed += slot.is_closed ? 1 : 0;
    if (slot.entry->num_running == 0 && is_older(slot, oldest)) oldest = i;
    if (!slot.is_closed && is_older(slot, oldest_open)) oldest_open = i;
  }
  if (oldest >= 0) return oldest;
  if (oldest_open >= 0 && num_closed < std::ssize(wanted_)) {
    slots_[static_cast<std::size_t>(oldest_open)].is_closed = true;
  }
  return std::nullopt;
}

std::optional<AdapterResidency::Fetch> AdapterResidency::next_fetch() {
  // Whoever comes first in line and still has its slot, which was closed, did not lose it: somebody
  // else's came free.
  while (!wanted_.empty() && wanted_.front()->slot >= 0) {
    slots_[static_cast<std::size_t>(wanted_.front()->slot)].is_closed = false;
    wanted_.front()->is_wanted = false;
    wanted_.pop_front();
  }
  if (wanted_.empty()) {
    for (Slot& slot : slots_) slot.is_closed = false;
    return std::nullopt;
  }
  const std::optional<int> free = find_slot();
  if (!free) return std::nullopt;
  Fetch fetch{std::move(wanted_.front()), *free};
  wanted_.pop_front();
  fetch.entry->is_wanted = false;
  Slot& slot = slots_[static_cast<std::size_t>(fetch.slot)];
  if (slot.entry != nullptr) slot.entry->slot = -1;
  slot = {fetch.entry, false};
  fetch.entry->is_loading = true;
  return fetch;
}

void AdapterResidency::loaded(const Fetch& fetch) noexcept {
  fetch.entry->is_loading = false;
  fetch.entry->slot = fetch.slot;
  fetch.entry->last_used = ++tick_;
}

void AdapterResidency::failed(const Fetch& fetch) noexcept {
  fetch.entry->is_loading = false;
  slots_[static_cast<std::size_t>(fetch.slot)] = {};
}

int AdapterResidency::remove(AdapterEntry& entry) noexcept {
  std::erase_if(wanted_, [&](const AdapterHandle& wanted) { return wanted.get() == &entry; });
  entry.is_wanted = false;
  const int slot = entry.slot;
  entry.slot = -1;
  if (slot >= 0) slots_[static_cast<std::size_t>(slot)] = {};
  return slot;
}

}  // namespace fovea
