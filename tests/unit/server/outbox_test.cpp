#include "outbox.h"

#include <gtest/gtest.h>

namespace fovea::server {
namespace {

TEST(Outbox, GivesAWholeAnswerOnce) {
  int num_wakes = 0;
  Outbox outbox([&num_wakes] { ++num_wakes; }, 100);
  EXPECT_TRUE(outbox.take().is_empty());
  outbox.respond({.status = 404});
  outbox.respond({.status = 200});
  EXPECT_EQ(num_wakes, 1);
  EXPECT_EQ(outbox.take().whole->status, 404);
  EXPECT_TRUE(outbox.take().is_empty());
}

TEST(Outbox, JoinsEventsThatWait) {
  Outbox outbox([] {}, 100);
  outbox.begin_stream({.status = 200});
  EXPECT_TRUE(outbox.write("one"));
  EXPECT_TRUE(outbox.write("two"));
  outbox.end_stream();
  const Outbox::Parcel parcel = outbox.take();
  EXPECT_TRUE(parcel.head);
  EXPECT_EQ(parcel.events, "onetwo");
  EXPECT_TRUE(parcel.has_ended);
  EXPECT_FALSE(parcel.was_aborted);
}

TEST(Outbox, RefusesWhatASlowReaderLetPileUp) {
  Outbox outbox([] {}, 10);
  outbox.begin_stream({.status = 200});
  EXPECT_TRUE(outbox.write("12345678"));
  EXPECT_FALSE(outbox.write("345"));
  EXPECT_EQ(outbox.take().events, "12345678");
  EXPECT_TRUE(outbox.write("345"));
}

TEST(Outbox, ClosingTellsTheHandlerOnce) {
  int num_gone = 0;
  Outbox outbox([] {}, 10);
  outbox.on_gone([&num_gone] { num_gone += 1; });
  outbox.on_gone([&num_gone] { num_gone += 10; });
  outbox.close();
  outbox.close();
  EXPECT_EQ(num_gone, 11);
  EXPECT_FALSE(outbox.write("x"));
  outbox.on_gone([&num_gone] { num_gone += 100; });
  EXPECT_EQ(num_gone, 111);
}

TEST(Outbox, ClosingAfterTheEndTellsNobody) {
  int num_gone = 0;
  Outbox outbox([] {}, 10);
  outbox.on_gone([&num_gone] { ++num_gone; });
  outbox.respond({.status = 200});
  outbox.on_gone([&num_gone] { ++num_gone; });
  outbox.close();
  EXPECT_EQ(num_gone, 0);
}

}  // namespace
}  // namespace fovea::server
