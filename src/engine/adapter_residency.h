#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/adapter_store.h"

namespace fovea {

/// The adapter of a sequence that has none.
inline constexpr std::int32_t kNoAdapter = -1;

/// An adapter under the name that requests call it by. What it adds to the model never changes: a
/// file that is loaded again becomes another entry, with an id of its own.
struct AdapterEntry {
  std::string name;
  std::filesystem::path path;
  std::int32_t id = kNoAdapter;  ///< its namespace in the prefix cache
  int rank = 0;
  Sha256Digest digest{};

  std::atomic<int> num_requests{0};  ///< inside the engine, those that run included
  // The residency's own; written by the engine thread, read by any.
  std::atomic<int> slot{-1};        ///< on the device, once it is there
  std::atomic<int> num_running{0};  ///< sequences that hold it in its slot

  // Engine thread only.
  std::shared_ptr<const AdapterContents> contents;  ///< read already, for its first upload
  bool is_wanted = false;                           ///< in line for a slot
  bool is_loading = false;                          ///< on its way to one
  std::uint64_t last_used = 0;
};
using AdapterHandle = std::shared_ptr<AdapterEntry>;

/// Which adapter has which slot: an adapter that a request waits for takes the slot that was not
/// used for longest among those that no running sequence needs. When all are needed, the one not
/// used for longest is closed to newcomers until its sequences have ended, so that nobody waits for
/// ever. Knows no file and no device. Engine thread only.
class AdapterResidency {
 public:
  explicit AdapterResidency(int num_slots) : slots_(static_cast<std::size_t>(num_slots)) {}

  /// Whether a sequence may start with the adapter now. If not, the adapter is put in line for a
  /// slot.
  bool is_ready(const AdapterHandle& entry);
  /// A sequence starts with an adapter that is ready, and ends.
  void pin(AdapterEntry& entry) noexcept;
  void unpin(AdapterEntry& entry) noexcept;

  /// Puts an adapter in line if a slot is empty.
  void offer(const AdapterHandle& entry);

  /// An adapter to bring into a slot, which is empty from now on.
  struct Fetch {
    AdapterHandle entry;
    int slot = 0;
  };
  /// The next in line, if there is a slot for it. loaded() or failed() must follow.
  std::optional<Fetch> next_fetch();
  void loaded(const Fetch& fetch) noexcept;
  void failed(const Fetch& fetch) noexcept;

  /// Takes an adapter that nobody uses out of the line and out of its slot, which is returned (-1:
  /// it had none). Precondition: it is not loading.
  int remove(AdapterEntry& entry) noexcept;

 private:
  struct Slot {
    AdapterHandle entry;     // here, or on its way
    bool is_closed = false;  // to newcomers: somebody waits for it
  };

  std::optional<int> find_slot();

  std::vector<Slot> slots_;
  std::deque<AdapterHandle> wanted_;
  std::uint64_t tick_ = 0;
};

}  // namespace fovea
