#include "engine/sequence.h"

#include <gtest/gtest.h>

#include "support/pages.h"
#include "support/picture_identity.h"

namespace fovea {
namespace {

using testing_support::identity_of;
using testing_support::kBos;
using testing_support::kPageSize;

Prompt text_prompt(int num_tokens, int first_id = 100) {
  Prompt prompt;
  prompt.bos = kBos;
  for (int i = 0; i < num_tokens; ++i) prompt.tokens.push_back(Token::text(TokenId{first_id + i}));
  return prompt;
}

Prompt picture_prompt(int picture, int image_tokens, int num_tokens) {
  Prompt prompt = text_prompt(num_tokens);
  prompt.picture = identity_of(picture);
  prompt.image_tokens = image_tokens;
  return prompt;
}

class SequenceTest : public testing::Test {
 protected:
  Sequence make(Prompt prompt) {
    return Sequence(allocator_, cache_, kPageSize, std::move(prompt));
  }

  // As a step would: pages, copies, keys and values of everything that is known.
  void compute(Sequence& sequence) {
    std::optional<Sequence::PageCopy> copy;
    ASSERT_TRUE(sequence.reserve(sequence.length(), copy));
    if (copy) allocator_.release(copy->from);
    sequence.mark_computed(sequence.length());
  }

  // A request that came and went, and left its positions in the cache.
  void answer(Prompt prompt) {
    Sequence sequence = make(std::move(prompt));
    sequence.start_from_cache();
    compute(sequence);
    sequence.offer_to_cache(sequence.num_computed());
  }

  PageAllocator allocator_{32};
  PrefixCache cache_{allocator_, kPageSize};
};

TEST_F(SequenceTest, CountsPositionsOfPictureAndTokens) {
  Sequence sequence = make(picture_prompt(1, 9, 1));
  EXPECT_EQ(sequence.prompt_len(), 11);
  EXPECT_EQ(sequence.length(), 11);
  EXPECT_EQ(sequence.prefix_len(), 10);
  EXPECT_EQ(sequence.keys().size(), 2u);
  sequence.append(Token::text(TokenId{42}));
  sequence.append(Token::coord(TokenId{5}, 0.5f));
  EXPECT_EQ(sequence.length(), 13);
  EXPECT_EQ(sequence.num_generated(), 2);
  EXPECT_EQ(sequence.token_at(10).id, TokenId{100});
  EXPECT_EQ(sequence.token_at(11).id, TokenId{42});
  EXPECT_EQ(sequence.token_at(12).kind, Token::Kind::kCoord);
}

TEST_F(SequenceTest, WithoutAPictureNothingSeesAhead) {
  const Sequence sequence = make(text_prompt(0));
  EXPECT_EQ(sequence.length(), 1);
  EXPECT_EQ(sequence.prefix_len(), 0);
}

TEST_F(SequenceTest, TakesPagesAsItGrowsAndReturnsThem) {
  PageAllocator allocator(3);
  PrefixCache cache(allocator, kPageSize);
  {
    Sequence sequence(allocator, cache, kPageSize, text_prompt(0));
    std::optional<Sequence::PageCopy> copy;
    EXPECT_EQ(sequence.pages_missing(16), 1);
    EXPECT_TRUE(sequence.reserve(16, copy));
    EXPECT_EQ(sequence.pages().size(), 1u);
    EXPECT_EQ(sequence.pages_missing(16), 0);
    EXPECT_EQ(sequence.pages_missing(17), 1);
    EXPECT_TRUE(sequence.reserve(17, copy));
    EXPECT_EQ(sequence.pages().size(), 2u);
    EXPECT_EQ(sequence.slot_of(17), sequence.pages()[1].value() * kPageSize + 1);
    EXPECT_EQ(sequence.pages_missing(49), 2);
    EXPECT_FALSE(sequence.reserve(49, copy));
    EXPECT_EQ(sequence.pages().size(), 3u) << "what was taken stays";
    EXPECT_FALSE(copy.has_value());
  }
  EXPECT_EQ(allocator.num_free(), 3);
}

TEST_F(SequenceTest, StartsBehindWhatAnEarlierOneComputed) {
  answer(text_prompt(39));
  Sequence sequence = make(text_prompt(50));
  EXPECT_EQ(sequence.start_from_cache(), 40);
  EXPECT_EQ(sequence.num_computed(), 40);
  EXPECT_EQ(sequence.pages().size(), 3u);
}

TEST_F(SequenceTest, LeavesOnePositionToCompute) {
  answer(text_prompt(39));
  Sequence sequence = make(text_prompt(39));
  EXPECT_EQ(sequence.start_from_cache(), 39);
}

TEST_F(SequenceTest, APictureAloneIsComputedAgainBecauseSomethingMustBe) {
  answer(picture_prompt(1, 20, 0));
  Sequence alone = make(picture_prompt(1, 20, 0));
  EXPECT_EQ(alone.start_from_cache(), 0);
  Sequence with_question = make(picture_prompt(1, 20, 1));
  EXPECT_EQ(with_question.start_from_cache(), 21);
}

TEST_F(SequenceTest, AFollowUpFindsTheWholeAnswer) {
  Prompt follow_up = picture_prompt(1, 20, 3);
  {
    Sequence sequence = make(picture_prompt(1, 20, 3));
    sequence.start_from_cache();
    compute(sequence);
    for (int i = 0; i < 30; ++i) {
      const Token token = i % 3 == 0 ? Token::coord(TokenId{5}, static_cast<float>(i) / 32)
                                     : Token::text(TokenId{200 + i});
      sequence.append(token);
      follow_up.tokens.push_back(token);
      compute(sequence);
    }
    sequence.offer_to_cache(sequence.num_computed());
  }
  follow_up.tokens.push_back(Token::text(TokenId{7}));
  Sequence sequence = make(follow_up);
  EXPECT_EQ(sequence.start_from_cache(), 21 + 3 + 30);
}

TEST_F(SequenceTest, AnAnswerWithAnotherCoordinateIsFoundUpToThere) {
  Prompt first = text_prompt(4);
  first.tokens.push_back(Token::coord(TokenId{5}, 0.25f));
  Prompt second = text_prompt(4);
  second.tokens.push_back(Token::coord(TokenId{5}, 0.5f));
  second.tokens.push_back(Token::text(TokenId{7}));
  answer(first);
  Sequence sequence = make(second);
  EXPECT_EQ(sequence.start_from_cache(), 5);
}

TEST_F(SequenceTest, AHalfComputedPictureIsNotOffered) {
  Sequence sequence = make(picture_prompt(1, 40, 2));
  std::optional<Sequence::PageCopy> copy;
  ASSERT_TRUE(sequence.reserve(30, copy));
  sequence.mark_computed(30);
  sequence.offer_to_cache(30);
  EXPECT_EQ(cache_.num_nodes(), 0);
}

TEST_F(SequenceTest, CopiesASharedPageBeforeItWrites) {
  answer(text_prompt(19));  // 20 positions: the second page has four
  Sequence sequence = make(text_prompt(30));
  ASSERT_EQ(sequence.start_from_cache(), 20);
  const PageId full = sequence.pages()[0];
  const PageId shared = sequence.pages()[1];
  EXPECT_EQ(sequence.pages_missing(20), 0) << "nothing is written";
  EXPECT_EQ(sequence.pages_missing(31), 1) << "the copy";
  EXPECT_EQ(sequence.pages_missing(33), 2);

  std::optional<Sequence::PageCopy> copy;
  ASSERT_TRUE(sequence.reserve(31, copy));
  ASSERT_TRUE(copy.has_value());
  EXPECT_EQ(copy->from, shared);
  EXPECT_EQ(copy->to, sequence.pages()[1]);
  EXPECT_NE(copy->to, shared);
  EXPECT_EQ(sequence.pages()[0], full) << "a full page stays shared";
  EXPECT_EQ(allocator_.num_references(shared), 2) << "held until the copy is enqueued";
  allocator_.release(copy->from);

  copy.reset();
  ASSERT_TRUE(sequence.reserve(40, copy));
  EXPECT_FALSE(copy.has_value()) << "copied once";
}

TEST_F(SequenceTest, WritesItsOwnPageOnAfterOfferingIt) {
  Sequence sequence = make(text_prompt(19));
  sequence.start_from_cache();
  compute(sequence);
  sequence.offer_to_cache(20);
  sequence.append(Token::text(TokenId{1}));
  EXPECT_EQ(sequence.pages_missing(21), 0);
  std::optional<Sequence::PageCopy> copy;
  ASSERT_TRUE(sequence.reserve(21, copy));
  EXPECT_FALSE(copy.has_value()) << "the cache knows only of the positions it was offered";
}

TEST_F(SequenceTest, AMatchThatEndsWithAPageNeedsNoCopy) {
  answer(text_prompt(31));
  Sequence sequence = make(text_prompt(40));
  ASSERT_EQ(sequence.start_from_cache(), 32);
  EXPECT_EQ(sequence.pages_missing(41), 1);
  std::optional<Sequence::PageCopy> copy;
  ASSERT_TRUE(sequence.reserve(41, copy));
  EXPECT_FALSE(copy.has_value());
}

TEST_F(SequenceTest, KeepsTheCopyWhenThePoolRunsOutBehindIt) {
  answer(text_prompt(19));
  Sequence sequence = make(text_prompt(60));
  ASSERT_EQ(sequence.start_from_cache(), 20);
  std::vector<PageId> taken;
  while (allocator_.num_free() > 1) taken.push_back(*allocator_.allocate());
  std::optional<Sequence::PageCopy> copy;
  EXPECT_FALSE(sequence.reserve(61, copy));
  ASSERT_TRUE(copy.has_value());
  const PageId to = copy->to;
  for (const PageId page : taken) allocator_.release(page);
  EXPECT_TRUE(sequence.reserve(61, copy));
  EXPECT_EQ(copy->to, to) << "the second call leaves the copy alone";
  allocator_.release(copy->from);
}

TEST_F(SequenceTest, WhatItStartedFromIsNotEvictedUntilItIsReleased) {
  answer(text_prompt(19));
  Sequence sequence = make(text_prompt(30));
  ASSERT_EQ(sequence.start_from_cache(), 20);
  EXPECT_EQ(cache_.evict(32), 0);
  EXPECT_EQ(cache_.num_nodes(), 1);
  sequence.release();
  EXPECT_EQ(cache_.evict(32), 2);
  EXPECT_EQ(allocator_.num_free(), 32);
}

TEST_F(SequenceTest, StartsAgainAfterItWasPreempted) {
  Sequence sequence = make(text_prompt(30));
  sequence.start_from_cache();
  compute(sequence);
  sequence.append(Token::text(TokenId{1}));
  sequence.offer_to_cache(20);
  sequence.release();
  EXPECT_EQ(sequence.num_computed(), 0);
  EXPECT_TRUE(sequence.pages().empty());
  EXPECT_EQ(sequence.length(), 32) << "the tokens are kept";
  EXPECT_EQ(sequence.start_from_cache(), 20);
}

TEST_F(SequenceTest, AdaptersDoNotShare) {
  answer(text_prompt(39));
  Prompt prompt = text_prompt(39);
  prompt.adapter = 3;
  Sequence sequence = make(prompt);
  EXPECT_EQ(sequence.start_from_cache(), 0);
}

using SequenceDeathTest = SequenceTest;

TEST_F(SequenceDeathTest, OfferingWhatIsNotComputedIsABug) {
  Sequence sequence = make(text_prompt(3));
  EXPECT_DEATH(sequence.offer_to_cache(1), "1 positions of 0 computed");
}

TEST_F(SequenceDeathTest, StartingTwiceIsABug) {
  Sequence sequence = make(text_prompt(3));
  compute(sequence);
  EXPECT_DEATH(sequence.start_from_cache(), "starts once");
}

TEST_F(SequenceTest, TheBeginningOfSequenceAloneIsNotWorthACopy) {
  answer(text_prompt(5));
  Sequence other = make(text_prompt(5, 200));
  EXPECT_EQ(other.start_from_cache(), 0);
  std::optional<Sequence::PageCopy> copy;
  ASSERT_TRUE(other.reserve(other.length(), copy));
  EXPECT_FALSE(copy);
  Sequence same = make(text_prompt(5));
  EXPECT_EQ(same.start_from_cache(), 5);
}

}  // namespace
}  // namespace fovea
