#include "kernels/fiber_block.h"

#include <cstdint>
#include <gtest/gtest.h>
#include <vector>

namespace fovea::kernels {
namespace {

struct Shared {
  FiberBlock* fibers;
  std::uint32_t num_threads;
  std::vector<std::uint32_t>* cells;
  std::vector<std::uint64_t>* seen;
};

TEST(FiberBlock, EveryThreadRunsOnceInEveryBlock) {
  FiberBlock fibers;
  for (const std::uint32_t num_threads : {32u, 1024u, 64u}) {
    std::vector<std::uint32_t> cells(1024);
    const Shared shared{&fibers, num_threads, &cells, nullptr};
    for (int block = 0; block < 3; ++block) {
      fibers.run(
          num_threads,
          [](const void* context, std::uint32_t index) {
            ++(*static_cast<const Shared*>(context)->cells)[index];
          },
          &shared);
    }
    for (std::uint32_t i = 0; i < 1024; ++i) EXPECT_EQ(cells[i], i < num_threads ? 3u : 0u);
  }
}

TEST(FiberBlock, BehindABarrierAllThreadsHaveWritten) {
  FiberBlock fibers;
  std::vector<std::uint32_t> cells(256);
  std::vector<std::uint64_t> seen(256);
  const Shared shared{&fibers, 256, &cells, &seen};
  fibers.run(
      256,
      [](const void* context, std::uint32_t index) {
        const Shared& s = *static_cast<const Shared*>(context);
        for (std::uint32_t round = 1; round <= 5; ++round) {
          (*s.cells)[index] = round;
          s.fibers->block_barrier(index);
          std::uint64_t sum = 0;
          for (const std::uint32_t cell : *s.cells) sum += cell;
          (*s.seen)[index] = (*s.seen)[index] * 10 + sum / 256;
          s.fibers->block_barrier(index);
        }
      },
      &shared);
  for (const std::uint64_t rounds : seen) EXPECT_EQ(rounds, 12345u);
}

TEST(FiberBlock, AnExchangeShowsTheWholeWarpAndNoOther) {
  FiberBlock fibers;
  std::vector<std::uint64_t> seen(96);
  const Shared shared{&fibers, 96, nullptr, &seen};
  fibers.run(
      96,
      [](const void* context, std::uint32_t index) {
        const Shared& s = *static_cast<const Shared*>(context);
        std::uint64_t value = index;
        for (int round = 0; round < 4; ++round) {
          value = s.fibers->exchange(index, value)[(index + 1) % 32];
        }
        (*s.seen)[index] = value;
      },
      &shared);
  for (std::uint32_t i = 0; i < 96; ++i) EXPECT_EQ(seen[i], i / 32 * 32 + (i + 4) % 32);
}

TEST(FiberBlock, WarpsPassTheirBarriersAlone) {
  FiberBlock fibers;
  std::vector<std::uint64_t> seen(64);
  const Shared shared{&fibers, 64, nullptr, &seen};
  fibers.run(
      64,
      [](const void* context, std::uint32_t index) {
        const Shared& s = *static_cast<const Shared*>(context);
        for (std::uint32_t i = 0; i < (index < 32 ? 3u : 7u); ++i) s.fibers->warp_barrier(index);
        (*s.seen)[index] = 1;
        s.fibers->block_barrier(index);
      },
      &shared);
  for (const std::uint64_t done : seen) EXPECT_EQ(done, 1u);
}

using FiberBlockDeathTest = testing::Test;

TEST(FiberBlockDeathTest, ABarrierThatNotAllReachIsAnError) {
  EXPECT_DEATH(
      {
        FiberBlock fibers;
        const Shared shared{&fibers, 64, nullptr, nullptr};
        fibers.run(
            64,
            [](const void* context, std::uint32_t index) {
              if (index != 40) static_cast<const Shared*>(context)->fibers->block_barrier(index);
            },
            &shared);
      },
      "waits at a barrier that others of its block never reach");
}

#if defined(__SANITIZE_THREAD__)
TEST(FiberBlockDeathTest, AMissingBarrierIsARace) {
  EXPECT_DEATH(
      {
        FiberBlock fibers;
        std::vector<std::uint32_t> cells(32);
        std::vector<std::uint64_t> seen(32);
        const Shared shared{&fibers, 32, &cells, &seen};
        fibers.run(
            32,
            [](const void* context, std::uint32_t index) {
              const Shared& s = *static_cast<const Shared*>(context);
              (*s.cells)[index] = index;
              (*s.seen)[index] = (*s.cells)[(index + 1) % 32];
            },
            &shared);
        std::exit(0);  // the sanitizer's own code comes on the way out
      },
      "data race");
}
#endif

}  // namespace
}  // namespace fovea::kernels
