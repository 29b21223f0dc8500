#include "engine/prefix_cache.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/math.h"
#include "engine/sequence.h"
#include "support/pages.h"
#include "support/picture_identity.h"

namespace fovea {
namespace {

using testing_support::identity_of;
using testing_support::kBos;
using testing_support::kPageSize;

using Keys = std::vector<PrefixKey>;

constexpr int kAll = std::numeric_limits<int>::max();

// One position for each letter.
Keys text(std::string_view letters) {
  Keys keys;
  for (const char letter : letters) keys.push_back(PrefixKey::of(Token::text(TokenId{letter})));
  return keys;
}

Keys repeat(char letter, int count) {
  return text(std::string(static_cast<std::size_t>(count), letter));
}

Keys operator+(Keys a, const Keys& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Keys picture(int value, int image_tokens = 20) {
  return {PrefixKey::of_picture(kBos, identity_of(value), image_tokens)};
}

int num_positions(const Keys& keys) {
  return std::accumulate(keys.begin(), keys.end(), 0,
                         [](int sum, const PrefixKey& key) { return sum + key.span; });
}

class PrefixCacheTest : public testing::Test {
 protected:
  ~PrefixCacheTest() override {
    cache_.evict(kAll);
    EXPECT_EQ(cache_.num_nodes(), 0);
    EXPECT_EQ(cache_.num_page_references(), 0);
    EXPECT_EQ(allocator_.num_free(), allocator_.num_pages());
  }

  // As a sequence that computed everything itself. Returns the pages it used.
  std::vector<PageId> keep(const Keys& keys, std::int32_t adapter = kNoAdapter) {
    std::vector<PageId> pages;
    for (int i = 0; i < ceil_div(num_positions(keys), kPageSize); ++i) {
      pages.push_back(*allocator_.allocate());
    }
    cache_.insert(adapter, keys, pages);
    for (const PageId page : pages) allocator_.release(page);
    return pages;
  }

  void give_back(const PrefixCache::Match& match) {
    for (const PageId page : match.pages) allocator_.release(page);
    cache_.unlock(match.node);
  }

  // The positions that a match finds; counts as a use.
  int found(const Keys& keys, int max_positions = kAll, std::int32_t adapter = kNoAdapter) {
    const PrefixCache::Match match = cache_.match(adapter, keys, max_positions);
    give_back(match);
    return match.num_positions;
  }

  int peek(const Keys& keys) const { return cache_.peek(kNoAdapter, keys); }

  PageAllocator allocator_{64};
  PrefixCache cache_{allocator_, kPageSize};
};

TEST_F(PrefixCacheTest, FindsNothingWhenEmpty) {
  const PrefixCache::Match match = cache_.match(kNoAdapter, text("abc"), kAll);
  EXPECT_EQ(match.num_positions, 0);
  EXPECT_TRUE(match.pages.empty());
  EXPECT_EQ(match.node, nullptr);
}

TEST_F(PrefixCacheTest, FindsTheLongestBeginning) {
  keep(text("abcdef"));
  EXPECT_EQ(found(text("abcdef")), 6);
  EXPECT_EQ(found(text("abcdefgh")), 6);
  EXPECT_EQ(found(text("abcxyz")), 3);
  EXPECT_EQ(found(text("ab")), 2);
  EXPECT_EQ(found(text("xbc")), 0);
  EXPECT_EQ(found({}), 0);
}

TEST_F(PrefixCacheTest, GivesThePagesThatWereInserted) {
  const std::vector<PageId> pages = keep(repeat('a', 40));
  const PrefixCache::Match match = cache_.match(kNoAdapter, repeat('a', 20), kAll);
  EXPECT_EQ(match.num_positions, 20);
  EXPECT_EQ(match.pages, std::vector<PageId>(pages.begin(), pages.begin() + 2));
  give_back(match);
}

TEST_F(PrefixCacheTest, StopsAtTheGivenNumberOfPositions) {
  keep(text("abcdef"));
  EXPECT_EQ(found(text("abcdef"), 5), 5);
  EXPECT_EQ(found(text("abcdef"), 0), 0);
}

TEST_F(PrefixCacheTest, ASplitInsideAPageSharesIt) {
  const std::vector<PageId> pages = keep(repeat('a', 40));
  EXPECT_EQ(cache_.num_page_references(), 3);
  EXPECT_EQ(found(repeat('a', 20) + text("b")), 20);
  EXPECT_EQ(cache_.num_nodes(), 2);
  EXPECT_EQ(cache_.num_page_references(), 4);
  EXPECT_EQ(allocator_.num_references(pages[0]), 1);
  EXPECT_EQ(allocator_.num_references(pages[1]), 2);
  EXPECT_EQ(allocator_.num_references(pages[2]), 1);
  EXPECT_EQ(found(repeat('a', 40)), 40) << "both parts are still there";
}

TEST_F(PrefixCacheTest, ASplitBetweenPagesSharesNone) {
  keep(repeat('a', 48));
  EXPECT_EQ(found(repeat('a', 32)), 32);
  EXPECT_EQ(cache_.num_nodes(), 2);
  EXPECT_EQ(cache_.num_page_references(), 3);
}

// Both branches have a page for positions [16, 32): each match must get the one of its own branch,
// whose first positions are those in common.
TEST_F(PrefixCacheTest, BranchesInsideAPageHavePagesOfTheirOwn) {
  const Keys a = repeat('x', 20) + repeat('a', 20), b = repeat('x', 20) + repeat('b', 20);
  const std::vector<PageId> pages_a = keep(a), pages_b = keep(b);
  const PrefixCache::Match match_a = cache_.match(kNoAdapter, a, kAll);
  const PrefixCache::Match match_b = cache_.match(kNoAdapter, b, kAll);
  EXPECT_EQ(match_a.pages, pages_a);
  EXPECT_EQ(match_b.pages, (std::vector<PageId>{pages_a[0], pages_b[1], pages_b[2]}));
  give_back(match_a);
  give_back(match_b);
}

TEST_F(PrefixCacheTest, WhatIsCachedAlreadyIsNotKeptTwice) {
  keep(repeat('a', 40));
  keep(repeat('a', 40));
  keep(repeat('a', 10));
  EXPECT_EQ(cache_.num_nodes(), 1);
  EXPECT_EQ(cache_.num_page_references(), 3);
  EXPECT_EQ(allocator_.num_free(), 61);
}

TEST_F(PrefixCacheTest, APictureIsFoundWholeOrNotAtAll) {
  keep(picture(1) + text("abc"));
  EXPECT_EQ(found(picture(1) + text("abd")), 23);
  EXPECT_EQ(found(picture(1), 20), 0);
  EXPECT_EQ(found(picture(1) + text("abc"), 21), 21);
}

TEST_F(PrefixCacheTest, KeysThatDifferInAnythingAreDifferent) {
  const auto of = [](const Token& token) { return Keys{PrefixKey::of(token)}; };
  const std::vector<Keys> different = {
      of(Token::text(TokenId{5})),
      of(Token::text(TokenId{6})),
      of(Token::coord(TokenId{5}, 0.25f)),
      of(Token::coord(TokenId{5}, 0.5f)),
      of(Token::coord(TokenId{6}, 0.5f)),
      of(Token::size(TokenId{5}, 0.25f, 0.5f)),
      of(Token::size(TokenId{5}, 0.5f, 0.25f)),
      of(Token::size(TokenId{5}, 0.5f, 0.0f)),
      of(Token::text(kBos)),
      picture(0),
      picture(1),
      picture(1, 21),
      {PrefixKey::of_picture(TokenId{1}, identity_of(1), 20)},
  };
  for (std::size_t i = 0; i < different.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) EXPECT_FALSE(different[i] == different[j]) << i << ' ' << j;
    EXPECT_EQ(found(different[i]), 0) << i;
    keep(different[i]);
    EXPECT_EQ(found(different[i]), num_positions(different[i])) << i;
  }
}

TEST_F(PrefixCacheTest, AdaptersDoNotSeeOneAnother) {
  keep(text("abc"), 1);
  EXPECT_EQ(found(text("abc"), kAll, 1), 3);
  EXPECT_EQ(found(text("abc"), kAll, 2), 0);
  EXPECT_EQ(found(text("abc")), 0);
}

TEST_F(PrefixCacheTest, DropsOneAdapter) {
  keep(text("abcd"), 1);
  keep(text("abxy"), 1);
  keep(text("abc"), 2);
  cache_.drop(1);
  EXPECT_EQ(found(text("abc"), kAll, 1), 0);
  EXPECT_EQ(found(text("abc"), kAll, 2), 3);
  EXPECT_EQ(cache_.num_nodes(), 1);
  cache_.drop(7);
  EXPECT_EQ(cache_.num_nodes(), 1);
}

TEST_F(PrefixCacheTest, DropLeavesWhatIsLocked) {
  keep(text("abcd"), 1);
  const PrefixCache::Match match = cache_.match(1, text("ab"), kAll);
  cache_.drop(1);
  EXPECT_EQ(cache_.peek(1, text("abcd")), 2);
  give_back(match);
  cache_.drop(1);
  EXPECT_EQ(cache_.peek(1, text("abcd")), 0);
}

TEST_F(PrefixCacheTest, EvictsTheLeastRecentlyUsedFirst) {
  keep(text("a"));
  keep(text("b"));
  keep(text("c"));
  EXPECT_EQ(found(text("a")), 1);
  EXPECT_EQ(cache_.evict(1), 1);
  EXPECT_EQ(peek(text("b")), 0);
  keep(text("c"));  // a use, although it is there
  EXPECT_EQ(cache_.evict(1), 1);
  EXPECT_EQ(peek(text("a")), 0);
  EXPECT_EQ(peek(text("c")), 1);
}

TEST_F(PrefixCacheTest, EvictsLeavesBeforeWhatTheyContinue) {
  keep(repeat('a', 16) + repeat('b', 16));
  keep(repeat('a', 16) + repeat('c', 16));
  keep(repeat('d', 16));
  EXPECT_EQ(cache_.evict(1), 1);
  EXPECT_EQ(peek(repeat('a', 16) + repeat('b', 16)), 16);
  EXPECT_EQ(peek(repeat('a', 16) + repeat('c', 16)), 32);
  EXPECT_EQ(cache_.evict(2), 2);
  EXPECT_EQ(peek(repeat('a', 16)), 0);
  EXPECT_EQ(peek(repeat('d', 16)), 16);
}

TEST_F(PrefixCacheTest, EvictsUntilThePagesAreFree) {
  keep(repeat('a', 16));
  const Keys shared = repeat('b', 16);
  const std::vector<PageId> pages = keep(shared);
  keep(repeat('c', 16));
  EXPECT_EQ(found(repeat('a', 16)), 16);
  allocator_.retain(pages[0]);  // a sequence's: dropping b would free nothing, so it stays
  EXPECT_EQ(cache_.evict(1), 1);
  EXPECT_EQ(peek(repeat('b', 16)), 16);
  EXPECT_EQ(peek(repeat('c', 16)), 0);
  EXPECT_EQ(peek(repeat('a', 16)), 16);
  EXPECT_EQ(cache_.evict(5), 1) << "nothing else that frees a page is left";
  EXPECT_EQ(peek(repeat('b', 16)), 16);
  allocator_.release(pages[0]);
  EXPECT_EQ(cache_.evict(5), 1);
  EXPECT_EQ(peek(repeat('b', 16)), 0);
}

TEST_F(PrefixCacheTest, ALockKeepsANodeAndWhatLiesAbove) {
  keep(repeat('a', 16) + repeat('b', 16));
  keep(repeat('a', 16) + repeat('c', 16));
  const PrefixCache::Match first = cache_.match(kNoAdapter, repeat('a', 16) + repeat('b', 8), kAll);
  const PrefixCache::Match second = cache_.match(kNoAdapter, repeat('a', 8), kAll);
  for (const PageId page : first.pages) allocator_.release(page);
  for (const PageId page : second.pages) allocator_.release(page);
  EXPECT_EQ(cache_.evict(kAll), 1);
  EXPECT_EQ(peek(repeat('a', 16) + repeat('b', 16)), 24);
  cache_.unlock(first.node);
  EXPECT_EQ(cache_.evict(kAll), 1);
  EXPECT_EQ(peek(repeat('a', 16)), 8);
  cache_.unlock(second.node);
  EXPECT_EQ(cache_.evict(kAll), 1);
}

TEST_F(PrefixCacheTest, ALockSurvivesASplitOfItsNode) {
  keep(repeat('a', 48));
  const PrefixCache::Match whole = cache_.match(kNoAdapter, repeat('a', 48), kAll);
  EXPECT_EQ(found(repeat('a', 10)), 10);
  EXPECT_EQ(found(repeat('a', 30)), 30);
  cache_.evict(kAll);
  EXPECT_EQ(peek(repeat('a', 48)), 48);
  give_back(whole);
}

TEST_F(PrefixCacheTest, AMatchHoldsItsPages) {
  keep(repeat('a', 16));
  const PrefixCache::Match match = cache_.match(kNoAdapter, repeat('a', 16), kAll);
  cache_.unlock(match.node);
  cache_.clear();
  EXPECT_EQ(cache_.num_nodes(), 0);
  EXPECT_EQ(allocator_.num_free(), 63);
  allocator_.release(match.pages[0]);
}

TEST_F(PrefixCacheTest, PeekChangesNothing) {
  keep(text("abcd"));
  keep(text("x"));
  EXPECT_EQ(peek(text("abz")), 2);
  EXPECT_EQ(cache_.num_nodes(), 2) << "no split";
  EXPECT_EQ(cache_.evict(1), 1);
  EXPECT_EQ(peek(text("abcd")), 0) << "no use, so it was the oldest";
  EXPECT_EQ(peek(text("x")), 1);
}

TEST_F(PrefixCacheTest, GivesItsPagesBackWhenItGoes) {
  PageAllocator allocator(4);
  {
    PrefixCache cache(allocator, kPageSize);
    const std::vector<PageId> pages = {*allocator.allocate(), *allocator.allocate()};
    cache.insert(1, repeat('a', 30), pages);
    cache.insert(1, repeat('a', 20) + repeat('b', 5), pages);
    for (const PageId page : pages) allocator.release(page);
    EXPECT_EQ(allocator.num_free(), 2);
  }
  EXPECT_EQ(allocator.num_free(), 4);
}

using PrefixCacheDeathTest = PrefixCacheTest;

TEST_F(PrefixCacheDeathTest, UnlockingTwiceIsABug) {
  keep(text("abc"));
  const PrefixCache::Match match = cache_.match(kNoAdapter, text("abc"), kAll);
  give_back(match);
  EXPECT_DEATH(cache_.unlock(match.node), "is not locked");
}

// ---- random operations against a naive model

struct RandomCase {
  unsigned seed;
  int page_size, num_pages;
};

// Sequences that come, grow, are offered to the cache, pre-empted and go, next to evictions and
// drops. The model of the cache is a list of key sequences. Every slot of the memory holds what
// determines the keys and values of the position that was written there last.
class RandomOperations : public testing::TestWithParam<RandomCase> {
 protected:
  struct Live {
    std::unique_ptr<Sequence> sequence;
    int locked = 0;  // positions found in the cache at its start
  };
  struct Entry {
    std::int32_t adapter;
    Keys keys;
  };

  int draw(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }

  Token draw_token() {
    switch (draw(12)) {
      case 0:
        return Token::text(TokenId{2});
      case 1:
        return Token::coord(TokenId{1}, draw(2) == 0 ? 0.25f : 0.5f);
      case 2:
        return Token::size(TokenId{1}, 0.25f, draw(2) == 0 ? 0.25f : 0.5f);
      default:
        return Token::text(TokenId{1});
    }
  }

  Prompt draw_prompt() {
    if (!finished_.empty() && draw(2) == 0) {  // a follow-up
      Prompt prompt = finished_[static_cast<std::size_t>(draw(static_cast<int>(finished_.size())))];
      if (prompt.tokens.size() < 100) {
        for (int i = draw(6); i > 0; --i) prompt.tokens.push_back(draw_token());
        return prompt;
      }
    }
    Prompt prompt;
    prompt.bos = kBos;
    if (draw(2) == 0) {
      const int value = draw(3);
      prompt.picture = identity_of(value);
      prompt.image_tokens = 20 + 13 * value;
    }
    for (int i = draw(30); i > 0; --i) prompt.tokens.push_back(draw_token());
    prompt.adapter = draw(4) == 0 ? 1 : kNoAdapter;
    return prompt;
  }

  // What the keys and values of every position depend on: all keys up to and with its own. A
  // picture's positions differ from one another.
  static std::vector<std::uint64_t> contents(std::int32_t adapter,
                                             std::span<const PrefixKey> keys) {
    std::vector<std::uint64_t> result;
    std::uint64_t chain = static_cast<std::uint64_t>(adapter + 2);
    const auto mix = [&](std::uint64_t value) {
      chain = (chain ^ value) * 0x9fb21c651e98df25ull;
      chain ^= chain >> 29;
    };
    for (const PrefixKey& key : keys) {
      mix(static_cast<std::uint64_t>(key.kind) + 1);
      mix(static_cast<std::uint64_t>(key.id));
      mix(key.a);
      mix(key.b);
      mix(static_cast<std::uint64_t>(key.picture[31]));
      for (int i = 0; i < key.span; ++i) {
        mix(static_cast<std::uint64_t>(i));
        result.push_back(chain);
      }
    }
    return result;
  }

  // Positions of the longest common beginning with anything in the list.
  int expected(std::int32_t adapter, std::span<const PrefixKey> keys, int max_positions) const {
    int best = 0;
    for (const Entry& entry : cached_) {
      if (entry.adapter != adapter) continue;
      int positions = 0;
      for (std::size_t i = 0; i < std::min(keys.size(), entry.keys.size()); ++i) {
        if (!(keys[i] == entry.keys[i]) || positions + keys[i].span > max_positions) break;
        positions += keys[i].span;
      }
      best = std::max(best, positions);
    }
    return best;
  }

  static Keys first_positions(std::span<const PrefixKey> keys, int positions) {
    Keys result;
    for (const PrefixKey& key : keys) {
      if ((positions -= key.span) < 0) break;
      result.push_back(key);
    }
    return result;
  }

  void add_to_model(std::int32_t adapter, Keys keys) {
    const int positions = num_positions(keys);
    if (positions > expected(adapter, keys, kAll)) cached_.push_back({adapter, std::move(keys)});
  }

  void add_locked_to_model(std::int32_t adapter) {
    for (const Live& live : live_) {
      if (live.sequence->adapter() != adapter || live.locked == 0) continue;
      add_to_model(adapter, first_positions(live.sequence->keys(), live.locked));
    }
  }

  void expect_contents(const Sequence& sequence) const {
    const auto expected_contents = contents(sequence.adapter(), sequence.keys());
    for (int i = 0; i < sequence.num_computed(); ++i) {
      ASSERT_EQ(memory_[static_cast<std::size_t>(sequence.slot_of(i))],
                expected_contents[static_cast<std::size_t>(i)])
          << "position " << i;
    }
  }

  void start(Live& live) {
    Sequence& sequence = *live.sequence;
    const int most = sequence.length() - 1;
    const int nodes = cache_->num_nodes(), references = cache_->num_page_references();
    ASSERT_EQ(cache_->peek(sequence.adapter(), sequence.keys()),
              expected(sequence.adapter(), sequence.keys(), kAll));
    ASSERT_EQ(cache_->num_nodes(), nodes);
    ASSERT_EQ(cache_->num_page_references(), references);
    live.locked = sequence.start_from_cache();
    const int findable = expected(sequence.adapter(), sequence.keys(), most);
    ASSERT_EQ(live.locked, findable == 1 ? 0 : findable);  // one position is not worth a copy
    ASSERT_EQ(static_cast<int>(sequence.pages().size()), ceil_div(live.locked, page_size_));
    num_found_ += live.locked;
    expect_contents(sequence);
  }

  void copy_page(const Sequence::PageCopy& copy) {
    for (int i = 0; i < page_size_; ++i) {
      memory_[static_cast<std::size_t>(copy.to.value() * page_size_ + i)] =
          memory_[static_cast<std::size_t>(copy.from.value() * page_size_ + i)];
    }
    allocator_->release(copy.from);
    ++num_copies_;
  }

  bool reserve(Sequence& sequence, int positions) {
    const int missing = sequence.pages_missing(positions), free = allocator_->num_free();
    std::optional<Sequence::PageCopy> copy;
    const bool fits = sequence.reserve(positions, copy);
    EXPECT_EQ(fits, missing <= free);
    EXPECT_EQ(allocator_->num_free(), free - std::min(missing, free));
    if (copy) copy_page(*copy);
    return fits;
  }

  void evict(int num_pages) {
    const int free = allocator_->num_free();
    const int evicted = cache_->evict(num_pages);
    ASSERT_EQ(allocator_->num_free(), free + evicted);
    num_evicted_ += evicted;
    if (evicted < num_pages) {
      cache_->clear();  // what is left frees nothing
      ASSERT_EQ(allocator_->num_free(), free + evicted);
    }
    std::vector<Entry> before = std::exchange(cached_, {});
    if (evicted < num_pages) {
      for (const std::int32_t adapter : {kNoAdapter, 1}) add_locked_to_model(adapter);
      for (const Entry& entry : before) {
        ASSERT_EQ(cache_->peek(entry.adapter, entry.keys),
                  expected(entry.adapter, entry.keys, kAll));
      }
    } else {  // what is left of each entry
      for (const Entry& entry : before) {
        const int positions = cache_->peek(entry.adapter, entry.keys);
        add_to_model(entry.adapter, first_positions(entry.keys, positions));
      }
      for (const Live& live : live_) {
        const auto& sequence = *live.sequence;
        ASSERT_GE(expected(sequence.adapter(), sequence.keys(), kAll), live.locked) << "locked";
      }
    }
  }

  void drop(std::int32_t adapter) {
    cache_->drop(adapter);
    std::vector<Entry> before = std::exchange(cached_, {});
    for (Entry& entry : before) {
      if (entry.adapter != adapter) cached_.push_back(std::move(entry));
    }
    add_locked_to_model(adapter);
  }

  void offer(Sequence& sequence, int positions) {
    sequence.offer_to_cache(positions);
    Keys keys = first_positions(sequence.keys(), positions);
    if (!keys.empty()) add_to_model(sequence.adapter(), std::move(keys));
  }

  void preempt(Live& live) {
    live.sequence->release();
    live.locked = 0;
    start(live);
  }

  void finish(std::size_t i) {
    Sequence& sequence = *live_[i].sequence;
    offer(sequence, sequence.num_computed());
    Prompt prompt{.bos = kBos,
                  .picture = sequence.picture(),
                  .image_tokens = sequence.image_tokens(),
                  .tokens = {},
                  .adapter = sequence.adapter()};
    for (int at = 1 + sequence.image_tokens(); at < sequence.length(); ++at) {
      prompt.tokens.push_back(sequence.token_at(at));
    }
    finished_.push_back(std::move(prompt));
    if (finished_.size() > 10) finished_.erase(finished_.begin());
    live_.erase(live_.begin() + static_cast<std::ptrdiff_t>(i));
  }

  void compute(Live& live) {
    Sequence& sequence = *live.sequence;
    const int from = sequence.num_computed();
    int to = from + 1 + draw(sequence.length() - from);
    if (from < sequence.prefix_len()) to = std::max(to, sequence.prefix_len());
    if (!reserve(sequence, to)) {
      evict(sequence.pages_missing(to));
      if (!reserve(sequence, to)) {
        preempt(live_[static_cast<std::size_t>(draw(static_cast<int>(live_.size())))]);
        return;
      }
    }
    const auto values = contents(sequence.adapter(), sequence.keys());
    for (int i = from; i < to; ++i) {
      memory_[static_cast<std::size_t>(sequence.slot_of(i))] = values[static_cast<std::size_t>(i)];
    }
    sequence.mark_computed(to);
  }

  void step() {
    const int action = draw(1000);
    if (live_.empty() || (action < 120 && live_.size() < 6)) {
      live_.push_back(
          {std::make_unique<Sequence>(*allocator_, *cache_, page_size_, draw_prompt())});
      start(live_.back());
      return;
    }
    if (action < 125) return drop(draw(2) == 0 ? 1 : kNoAdapter);
    if (action < 130) return evict(1 + draw(8));
    if (action < 132) return evict(kAll);
    const auto i = static_cast<std::size_t>(draw(static_cast<int>(live_.size())));
    Sequence& sequence = *live_[i].sequence;
    if (action < 140) return preempt(live_[i]);
    if (action < 220) return offer(sequence, draw(sequence.num_computed() + 1));
    if (sequence.num_computed() < sequence.length()) return compute(live_[i]);
    if (sequence.num_generated() > 40 || draw(12) == 0) return finish(i);
    sequence.append(draw_token());
  }

  void expect_no_leaks() const {
    int references = 0, free = 0;
    for (int page = 0; page < allocator_->num_pages(); ++page) {
      references += allocator_->num_references(PageId{page});
      free += allocator_->num_references(PageId{page}) == 0 ? 1 : 0;
    }
    int held = cache_->num_page_references();
    for (const Live& live : live_) held += static_cast<int>(live.sequence->pages().size());
    ASSERT_EQ(references, held);
    ASSERT_EQ(free, allocator_->num_free());
  }

  std::mt19937 random_{GetParam().seed};
  int page_size_ = GetParam().page_size;
  std::unique_ptr<PageAllocator> allocator_ = std::make_unique<PageAllocator>(GetParam().num_pages);
  std::unique_ptr<PrefixCache> cache_ = std::make_unique<PrefixCache>(*allocator_, page_size_);
  std::vector<std::uint64_t> memory_ =
      std::vector<std::uint64_t>(static_cast<std::size_t>(GetParam().num_pages * page_size_));
  std::vector<Live> live_;
  std::vector<Entry> cached_;
  std::vector<Prompt> finished_;
  std::int64_t num_found_ = 0, num_evicted_ = 0, num_copies_ = 0;
};

TEST_P(RandomOperations, AgreeWithANaiveModel) {
  for (int i = 0; i < 20'000; ++i) {
    SCOPED_TRACE(i);
    step();
    if (i % 8 == 0) {
      for (const Live& live : live_) expect_contents(*live.sequence);
    }
    expect_no_leaks();
    if (HasFailure()) return;
  }
  EXPECT_GT(num_found_, 1000);
  EXPECT_GT(num_evicted_, 100);
  EXPECT_EQ(num_copies_ > 100, page_size_ > 1);

  live_.clear();
  if (GetParam().seed % 2 == 0) {
    cache_->evict(kAll);
    EXPECT_EQ(cache_->num_nodes(), 0);
    EXPECT_EQ(cache_->num_page_references(), 0);
  } else {
    cache_.reset();
  }
  EXPECT_EQ(allocator_->num_free(), allocator_->num_pages());
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomOperations,
                         testing::Values(RandomCase{1, 16, 48}, RandomCase{2, 16, 48},
                                         RandomCase{3, 16, 200}, RandomCase{4, 4, 160},
                                         RandomCase{5, 1, 600}),
                         [](const auto& test) { return "Seed" + std::to_string(test.param.seed); });

}  // namespace
}  // namespace fovea
