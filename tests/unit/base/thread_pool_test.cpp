#include "base/thread_pool.h"

#include <atomic>
#include <gtest/gtest.h>
#include <new>
#include <thread>
#include <vector>

namespace fovea {
namespace {

TEST(ThreadPool, CallsEveryIndexOnce) {
  for (const int num_threads : {1, 2, 5}) {
    ThreadPool pool(num_threads);
    std::vector<std::atomic<int>> calls(1000);
    pool.parallel_for(1000, [&](std::int64_t i, int thread_idx) {
      EXPECT_GE(thread_idx, 0);
      EXPECT_LT(thread_idx, num_threads);
      ++calls[static_cast<std::size_t>(i)];
    });
    for (const auto& count : calls) EXPECT_EQ(count.load(), 1);
  }
}

TEST(ThreadPool, ManyShortLoopsInARow) {
  ThreadPool pool(3);
  std::atomic<std::int64_t> sum{0};
  for (int round = 0; round < 2000; ++round) {
    pool.parallel_for(4, [&](std::int64_t i, int) { sum += i; });
  }
  EXPECT_EQ(sum.load(), 2000 * 6);
}

TEST(ThreadPool, EmptyLoopCallsNothing) {
  ThreadPool pool(2);
  pool.parallel_for(0, [](std::int64_t, int) { FAIL(); });
}

TEST(ThreadPool, CallersOnSeveralThreadsTakeTurns) {
  ThreadPool pool(2);
  std::atomic<int> total{0};
  {
    std::vector<std::jthread> callers;
    for (int c = 0; c < 4; ++c) {
      callers.emplace_back([&] {
        for (int round = 0; round < 100; ++round)
          pool.parallel_for(8, [&](std::int64_t, int) { ++total; });
      });
    }
  }
  EXPECT_EQ(total.load(), 4 * 100 * 8);
}

TEST(ThreadPool, WhatABodyThrowsReachesItsCallerAndThePoolGoesOn) {
  for (const int num_threads : {1, 4}) {
    ThreadPool pool(num_threads);
    for (const std::int64_t culprit : {0, 57, 199}) {
      EXPECT_THROW(pool.parallel_for(200,
                                     [&](std::int64_t i, int) {
                                       if (i == culprit) throw std::bad_alloc();
                                     }),
                   std::bad_alloc);
      std::atomic<int> calls{0};
      pool.parallel_for(200, [&](std::int64_t, int) { ++calls; });
      EXPECT_EQ(calls.load(), 200);
    }
  }
}

}  // namespace
}  // namespace fovea
