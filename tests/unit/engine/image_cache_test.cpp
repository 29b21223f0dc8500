#include "engine/image_cache.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <random>
#include <vector>

#include "support/memory_device.h"
#include "support/picture_identity.h"

namespace fovea {
namespace {

using testing_support::identity_of;

using testing_support::MemoryDevice;

class ImageCacheTest : public testing::Test {
 protected:
  std::shared_ptr<const EncodedImage> image(int number, std::int64_t bytes) {
    auto memory = Tensor::create(device_, DType::kU8, {bytes});
    EXPECT_TRUE(memory.ok());
    return std::make_shared<const EncodedImage>(
        EncodedImage{identity_of(number), std::move(memory).value()});
  }

  MemoryDevice device_;
};

TEST_F(ImageCacheTest, FindsWhatWasInserted) {
  ImageCache cache(100);
  const auto kept = image(1, 60);
  cache.insert(kept);
  EXPECT_EQ(cache.find(identity_of(1)), kept);
  EXPECT_EQ(cache.find(identity_of(2)), nullptr);
  EXPECT_EQ(cache.stats().hits, 1u);
  EXPECT_EQ(cache.stats().misses, 1u);
  EXPECT_EQ(cache.size_bytes(), 60u);
}

TEST_F(ImageCacheTest, EvictsTheLeastRecentlyUsed) {
  ImageCache cache(100);
  cache.insert(image(1, 40));
  cache.insert(image(2, 40));
  EXPECT_NE(cache.find(identity_of(1)), nullptr);  // 2 is now the older one
  cache.insert(image(3, 40));
  EXPECT_EQ(cache.find(identity_of(2)), nullptr);
  EXPECT_NE(cache.find(identity_of(1)), nullptr);
  EXPECT_NE(cache.find(identity_of(3)), nullptr);
  EXPECT_EQ(cache.stats().evictions, 1u);
  EXPECT_EQ(cache.size_bytes(), 80u);
}

TEST_F(ImageCacheTest, AnEvictedPictureInUseStaysAlive) {
  ImageCache cache(50);
  cache.insert(image(1, 50));
  std::shared_ptr<const EncodedImage> in_use = cache.find(identity_of(1));
  cache.insert(image(2, 50));
  EXPECT_EQ(cache.find(identity_of(1)), nullptr);
  EXPECT_EQ(device_.bytes_in_use(), 100u);
  EXPECT_EQ(cache.size_bytes(), 50u);
  in_use.reset();
  EXPECT_EQ(device_.bytes_in_use(), 50u);
}

TEST_F(ImageCacheTest, APictureLargerThanTheBudgetEvictsNothing) {
  ImageCache cache(50);
  cache.insert(image(1, 50));
  cache.insert(image(2, 51));
  EXPECT_EQ(cache.find(identity_of(2)), nullptr);
  EXPECT_NE(cache.find(identity_of(1)), nullptr);
  EXPECT_EQ(cache.stats().evictions, 0u);
}

TEST_F(ImageCacheTest, TheSameIdentityCountsOnce) {
  ImageCache cache(100);
  cache.insert(image(1, 60));
  const auto second = image(1, 70);
  cache.insert(second);
  EXPECT_EQ(cache.size(), 1u);
  EXPECT_EQ(cache.size_bytes(), 70u);
  EXPECT_EQ(cache.find(identity_of(1)), second);
  EXPECT_EQ(cache.stats().evictions, 0u);
}

TEST_F(ImageCacheTest, ClearReturnsTheMemory) {
  ImageCache cache(100);
  cache.insert(image(1, 60));
  cache.clear();
  EXPECT_EQ(cache.size_bytes(), 0u);
  EXPECT_EQ(device_.bytes_in_use(), 0u);
  EXPECT_EQ(cache.find(identity_of(1)), nullptr);
}

// Against a vector in order of use: 20,000 random operations.
TEST_F(ImageCacheTest, AgreesWithANaiveModel) {
  std::mt19937 random(11);
  ImageCache cache(200);
  std::vector<std::shared_ptr<const EncodedImage>> naive;  // least recently used first
  const auto position = [&](int number) {
    return std::find_if(naive.begin(), naive.end(),
                        [&](const auto& entry) { return entry->identity == identity_of(number); });
  };
  std::uint64_t evictions = 0, hits = 0, misses = 0;
  for (int i = 0; i < 20'000; ++i) {
    const int number = static_cast<int>(random() % 12);
    if (random() % 2 == 0) {
      const auto found = cache.find(identity_of(number));
      const auto expected = position(number);
      if (expected == naive.end()) {
        ASSERT_EQ(found, nullptr);
        ++misses;
      } else {
        ASSERT_EQ(found, *expected);
        std::rotate(expected, expected + 1, naive.end());
        ++hits;
      }
    } else {
      const auto entry = image(number, static_cast<std::int64_t>(random() % 220));
      cache.insert(entry);
      if (const auto old = position(number); old != naive.end()) naive.erase(old);
      if (entry->embeddings.size_bytes() <= 200) naive.push_back(entry);
    }
    const auto total = [&] {
      std::size_t bytes = 0;
      for (const auto& entry : naive) bytes += entry->embeddings.size_bytes();
      return bytes;
    };
    while (total() > 200) {
      naive.erase(naive.begin());
      ++evictions;
    }
    ASSERT_EQ(cache.size(), naive.size());
    ASSERT_EQ(cache.size_bytes(), total());
    ASSERT_EQ(device_.bytes_in_use(), total());
  }
  EXPECT_EQ(cache.stats().evictions, evictions);
  EXPECT_EQ(cache.stats().hits, hits);
  EXPECT_EQ(cache.stats().misses, misses);
}

}  // namespace
}  // namespace fovea
