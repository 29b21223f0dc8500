#pragma once

#include <filesystem>
#include <memory>

#include "fovea/result.h"

#include "base/sha256.h"

namespace fovea {

/// An adapter in host memory, read from its file and found to fit the model.
struct AdapterContents {
  int rank = 0;
  Sha256Digest digest{};                ///< of everything it adds to the model
  std::shared_ptr<const void> weights;  ///< the store's own
};

/// Where adapters come from and where they go: files, and slots on the device. The engine knows no
/// more of an adapter than this.
class AdapterStore {
 public:
  virtual ~AdapterStore() = default;

  virtual int num_slots() const = 0;

  /// Reads an adapter and checks that it fits the model and the slots. Any thread. Errors name the
  /// file and what is wrong with it.
  virtual Result<AdapterContents> read(const std::filesystem::path& path) const = 0;

  /// Copies an adapter into a slot that is disabled; waits until it is there. One thread at a time,
  /// which need not be the one that runs steps. Error: kDeviceLost.
  virtual Status upload(int slot, const AdapterContents& contents) = 0;

  /// From the next step on, the slot holds the adapter that was uploaded, or nothing. Engine
  /// thread.
  virtual void enable(int slot, const AdapterContents& contents) noexcept = 0;
  virtual void disable(int slot) noexcept = 0;
};

}  // namespace fovea
