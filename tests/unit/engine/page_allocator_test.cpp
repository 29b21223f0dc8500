#include "engine/page_allocator.h"

#include <gtest/gtest.h>
#include <map>
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

TEST(PageAllocator, APageIsFreeWhenItsLastHolderGivesItBack) {
  PageAllocator allocator(1);
  const PageId page = *allocator.allocate();
  EXPECT_EQ(allocator.num_references(page), 1);
  allocator.retain(page);
  EXPECT_EQ(allocator.num_references(page), 2);
  allocator.release(page);
  EXPECT_EQ(allocator.num_free(), 0);
  EXPECT_FALSE(allocator.allocate().has_value());
  allocator.release(page);
  EXPECT_EQ(allocator.num_free(), 1);
  EXPECT_EQ(allocator.num_references(page), 0);
  EXPECT_EQ(allocator.allocate(), page);
}

// Against a map from page to references: 20,000 random operations.
TEST(PageAllocator, AgreesWithANaiveModel) {
  std::mt19937 random(7);
  PageAllocator allocator(64);
  std::map<PageId, int> references;
  for (int i = 0; i < 20'000; ++i) {
    const auto action = random() % 4;
    if (action == 0) {
      const auto page = allocator.allocate();
      ASSERT_EQ(page.has_value(), references.size() < 64);
      if (page) {
        ASSERT_TRUE(references.emplace(*page, 1).second) << "handed out twice";
      }
    } else if (!references.empty()) {
      const auto it =
          std::next(references.begin(), static_cast<std::ptrdiff_t>(random() % references.size()));
      const PageId page = it->first;
      if (action == 1) {
        allocator.retain(page);
        ++it->second;
        ASSERT_EQ(allocator.num_references(page), it->second);
      } else {
        allocator.release(page);
        --it->second;
        ASSERT_EQ(allocator.num_references(page), it->second);
        if (it->second == 0) references.erase(it);
      }
    }
    ASSERT_EQ(allocator.num_free(), 64 - static_cast<int>(references.size()));
  }
}

TEST(PageAllocatorDeathTest, ReleasingTwiceIsABug) {
  PageAllocator allocator(2);
  const auto page = allocator.allocate();
  allocator.release(*page);
  EXPECT_DEATH(allocator.release(*page), "free already");
}

TEST(PageAllocatorDeathTest, RetainingAFreePageIsABug) {
  PageAllocator allocator(2);
  EXPECT_DEATH(allocator.retain(PageId{1}), "is free");
  EXPECT_DEATH(allocator.retain(PageId{2}), "no page 2");
}

}  // namespace
}  // namespace fovea
