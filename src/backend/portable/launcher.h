#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "fovea/result.h"

#include "backend/stream.h"
#include "kernels/kernel_id.h"

namespace fovea::portable {

/// Blocks of a launch.
struct Grid {
  std::uint32_t x = 1, y = 1, z = 1;
  std::uint32_t cluster = 1;  ///< neighbours in y that reach one another's shared memory
};

/// What a device has for blocks.
struct BlockRoom {
  std::size_t shared_bytes;  ///< that a block may ask for
  std::uint32_t cluster;     ///< blocks of a cluster at most
  std::uint32_t blocks;      ///< that run at once and have all of a multiprocessor
};

/// One kernel of kernels/entries.inc over a grid of blocks.
struct Launch {
  kernels::KernelId kernel;
  Grid grid;
  std::uint32_t threads;     ///< of a block: a multiple of 32, at most what the entry says
  std::size_t shared_bytes;  ///< scratch of a block
  std::span<const std::byte>
      params;                      ///< the kernel's parameter struct; read before launch() returns
  std::span<void* const> buffers;  ///< device memory, in the entry's order; null where not used
};

/// Starts kernels on a device: all that PortableOps knows of it.
class Launcher {
 public:
  virtual ~Launcher() = default;
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  virtual BlockRoom room() const = 0;

  /// Enqueues. What goes wrong is the stream's to tell at synchronize().
  virtual void launch(Stream& stream, const Launch& launch) = 0;
  /// Makes the stream's next synchronize() fail: an operation that was begun has no other way to
  /// say that it cannot go on.
  virtual void fail(Stream& stream, Error error) = 0;

 protected:
  Launcher() = default;
};

}  // namespace fovea::portable
