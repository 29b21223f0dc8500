#include "engine/sequence.h"

#include <gtest/gtest.h>

namespace fovea {
namespace {

TEST(Sequence, CountsPositionsOfPictureAndTokens) {
  PageAllocator allocator(4);
  std::byte memory{};
  Sequence sequence(allocator, 16, TokenId{0}, TensorView{DType::kF32, {9, 4}, &memory});
  EXPECT_EQ(sequence.length(), 10);
  EXPECT_EQ(sequence.prefix_len(), 10);
  sequence.append(Token::text(TokenId{42}));
  sequence.append(Token::coord(TokenId{5}, 0.5f));
  EXPECT_EQ(sequence.length(), 12);
  EXPECT_EQ(sequence.token_at(10).id, TokenId{42});
  EXPECT_EQ(sequence.token_at(11).kind, Token::Kind::kCoord);
}

TEST(Sequence, WithoutAPictureNothingSeesAhead) {
  PageAllocator allocator(1);
  const Sequence sequence(allocator, 16, TokenId{0}, {});
  EXPECT_EQ(sequence.length(), 1);
  EXPECT_EQ(sequence.prefix_len(), 0);
}

TEST(Sequence, TakesPagesAsItGrowsAndReturnsThem) {
  PageAllocator allocator(3);
  {
    Sequence sequence(allocator, 16, TokenId{0}, {});
    EXPECT_TRUE(sequence.reserve(16));
    EXPECT_EQ(sequence.pages().size(), 1u);
    EXPECT_TRUE(sequence.reserve(17));
    EXPECT_EQ(sequence.pages().size(), 2u);
    EXPECT_EQ(sequence.slot_of(17), sequence.pages()[1].value() * 16 + 1);
    EXPECT_FALSE(sequence.reserve(49));
  }
  EXPECT_EQ(allocator.num_free(), 3);
}

}  // namespace
}  // namespace fovea
