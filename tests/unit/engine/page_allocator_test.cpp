#include "engine/page_allocator.h"

#include <gtest/gtest.h>
#include <random>
#include <set>

namespace fovea {
namespace {

TEST(PageAllocator, HandsOutEveryPageOnce) {
  PageAllocator allocator(5);
  std::set<PageId> pages;
  while (const auto page = allocator.allocate()) pages.insert(*page);
  EXPECT_EQ(pages.size(), 5u);
  EXPECT_EQ(allocator.num_free(), 0);
}

// Against a set of ids: 20,000 random operations.
TEST(PageAllocator, AgreesWithANaiveModel) {
  std::mt19937 random(7);
  PageAllocator allocator(64);
  std::set<PageId> in_use;
  for (int i = 0; i < 20'000; ++i) {
    if (random() % 2 == 0) {
      const auto page = allocator.allocate();
      ASSERT_EQ(page.has_value(), in_use.size() < 64);
      if (page) {
        ASSERT_TRUE(in_use.insert(*page).second) << "handed out twice";
      }
    } else if (!in_use.empty()) {
      const auto it =
          std::next(in_use.begin(), static_cast<std::ptrdiff_t>(random() % in_use.size()));
      allocator.release(*it);
      in_use.erase(it);
    }
    ASSERT_EQ(allocator.num_free(), 64 - static_cast<int>(in_use.size()));
  }
}

TEST(PageAllocatorDeathTest, ReleasingTwiceIsABug) {
  PageAllocator allocator(2);
  const auto page = allocator.allocate();
  allocator.release(*page);
  EXPECT_DEATH(allocator.release(*page), "free already");
}

}  // namespace
}  // namespace fovea
