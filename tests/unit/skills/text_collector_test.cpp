#include "skills/text_collector.h"

#include <gtest/gtest.h>

#include "support/skill_fixture.h"

namespace fovea {
namespace {

using skills::TextCollector;

class TextCollectorTest : public testing_support::SkillFixture {};

TEST_F(TextCollectorTest, CutsBeforeTheFirstStopString) {
  TextCollector text(tokenizer_, {"stop", "cd"});
  for (const char c : std::string("ab")) EXPECT_FALSE(text.push(letter(c).token.id));
  EXPECT_FALSE(text.push(letter('c').token.id));
  EXPECT_TRUE(text.push(letter('d').token.id));
  text.finish();
  EXPECT_EQ(text.text(), "ab");
}

TEST_F(TextCollectorTest, HoldsBackWhatAStopStringMayStillCut) {
  TextCollector text(tokenizer_, {"xyz"});
  std::string streamed;
  const auto push = [&](char c) {
    text.push(letter(c).token.id);
    streamed += text.take();
  };
  push('a');
  EXPECT_EQ(streamed, "a");
  push('x');
  push('y');
  EXPECT_EQ(streamed, "a");
  push('x');  // "xy" is free, the second x is not
  EXPECT_EQ(streamed, "axy");
  push('b');
  EXPECT_EQ(streamed, "axyxb");
}

TEST_F(TextCollectorTest, FinishReleasesWhatWasHeldBack) {
  TextCollector text(tokenizer_, {"xyz"});
  text.push(letter('x').token.id);
  EXPECT_EQ(text.take(), "");
  text.finish();
  EXPECT_EQ(text.take(), "x");
  EXPECT_EQ(text.text(), "x");
}

TEST_F(TextCollectorTest, StreamedPiecesJoinToTheText) {
  TextCollector text(tokenizer_, {"bab"});
  std::string streamed;
  for (const char c : std::string("abbaabab")) {
    const bool stopped = text.push(letter(c).token.id);
    streamed += text.take();
    if (stopped) break;
  }
  text.finish();
  streamed += text.take();
  EXPECT_EQ(text.text(), "abbaa");
  EXPECT_EQ(streamed, text.text());
}

}  // namespace
}  // namespace fovea
