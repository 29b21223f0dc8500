#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

#include "base/math.h"
#include "base/thread_pool.h"

namespace fovea::cpu {

/// body(begin, end, thread_idx) over [0, count) in chunks that are worth waking a thread for:
/// `cost` is roughly the number of floats that one index touches.
template <class Body>
void parallel_rows(ThreadPool& pool, std::int64_t count, std::int64_t cost, const Body& body) {
  constexpr std::int64_t kChunkCost = 32768;  // about 10 us
  const std::int64_t smallest =
      std::max<std::int64_t>(1, kChunkCost / std::max<std::int64_t>(cost, 1));
  const std::int64_t fair = ceil_div(count, std::int64_t{8} * pool.num_threads());
  const std::int64_t chunk = std::max(smallest, fair);
  const auto run = [&](std::int64_t index, int thread_idx) {
    body(index * chunk, std::min(count, (index + 1) * chunk), thread_idx);
  };
  // std::function holds a reference without allocating.
  pool.parallel_for(ceil_div(count, chunk), std::ref(run));
}

}  // namespace fovea::cpu
