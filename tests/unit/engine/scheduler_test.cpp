// What the scheduler plans, step by step, on a clock of the test's own.

#include "engine/scheduler.h"

#include <gtest/gtest.h>
#include <list>

#include "support/pages.h"
#include "support/picture_identity.h"

namespace fovea {
namespace {

using testing_support::identity_of;
using testing_support::kPageSize;

constexpr int kImageTokens = 40;

struct Rig {
  explicit Rig(SchedulerOptions options = {.max_sequences = 8, .max_rows = 64, .max_crops = 2},
               int num_pages = 200)
      : pages(num_pages),
        cache(pages, kPageSize),
        adapters(1),
        scheduler(options, pages, cache, adapters) {}

  Generation& line_up(int prompt, std::optional<int> picture = {}, double place_ms = 0) {
    Generation& generation = generations.emplace_back();
    Prompt description{.bos = TokenId{1},
                       .picture = {},
                       .image_tokens = picture ? kImageTokens : 0,
                       .tokens = {},
                       .adapter = kNoAdapter};
    if (picture) description.picture = identity_of(*picture);
    const int first = 100 * static_cast<int>(generations.size());  // nobody shares a beginning
    for (int i = 0; i < prompt; ++i) {
      description.tokens.push_back(Token::text(TokenId{first + i}));
    }
    generation.sequence.emplace(pages, cache, kPageSize, std::move(description));
    if (picture) {
      generation.sequence->set_image(
          std::make_shared<const EncodedImage>(EncodedImage{identity_of(*picture), {}}));
    }
    generation.order = static_cast<std::int64_t>(generations.size());
    generation.place_ms = place_ms;
    generation.max_new_tokens = 100;
    scheduler.add(generation);
    return generation;
  }

  std::shared_ptr<PictureJob> line_up_picture(int number, int num_crops) {
    auto job = std::make_shared<PictureJob>();
    job->identity = identity_of(number);
    job->crops.tiling = num_crops == 1 ? Tiling{1, 1} : Tiling{1, num_crops - 1};
    job->queued_ms = now_ms;
    scheduler.add_picture(job);
    return job;
  }

  // A step that comes back at once: whoever samples gets a word.
  StepPlan step(bool more_pictures = false) {
    StepPlan plan = scheduler.plan(now_ms, costs, more_pictures);
    std::vector<Generation*> left;
    scheduler.commit(plan, left);
    for (const PlannedRows& rows : plan.rows) {
      if (rows.samples) rows.generation->sequence->append(Token::text(TokenId{7}));
    }
    return plan;
  }

  PageAllocator pages;
  PrefixCache cache;
  AdapterResidency adapters;
  std::list<Generation> generations;
  Scheduler scheduler;
  StepCosts costs;
  double now_ms = 0;
};

int rows_of(const StepPlan& plan, const Generation& generation) {
  for (const PlannedRows& rows : plan.rows) {
    if (rows.generation == &generation) return rows.end - rows.begin;
  }
  return 0;
}

TEST(Scheduler, PromptsFillWhatRunningAnswersLeaveOfAStep) {
  Rig rig;
  Generation& running = rig.line_up(10);
  rig.step();
  Generation& large = rig.line_up(150);
  EXPECT_EQ(running.sequence->num_generated(), 1);
  // 151 positions, beside one decoded row of 64.
  for (const int expected : {63, 63, 25}) {
    const StepPlan plan = rig.step();
    EXPECT_EQ(rows_of(plan, running), 1);
    EXPECT_EQ(rows_of(plan, large), expected);
  }
  EXPECT_EQ(large.sequence->num_generated(), 1);
}

TEST(Scheduler, APicturesPrefixIsNeverSplit) {
  Rig rig;
  rig.line_up(40);  // 41 rows leave 23
  Generation& pictured = rig.line_up(5, 1);
  EXPECT_EQ(rows_of(rig.step(), pictured), 0);
  EXPECT_GE(rows_of(rig.step(), pictured), 1 + kImageTokens);
}

TEST(Scheduler, OneSequenceComputesAPictureThatOthersWaitFor) {
  Rig rig({.max_sequences = 8, .max_rows = 200, .max_crops = 2});
  Generation& first = rig.line_up(5, 1);
  Generation& second = rig.line_up(6, 1);
  const StepPlan plan = rig.step();
  EXPECT_EQ(rows_of(plan, first), 1 + kImageTokens + 5);
  EXPECT_EQ(rows_of(plan, second), 0);
  EXPECT_EQ(rows_of(rig.step(), second), 6);
  EXPECT_EQ(second.cached_tokens, 1 + kImageTokens);
}

TEST(Scheduler, CropsOfDifferentPicturesShareAVisionBatch) {
  Rig rig({.max_sequences = 8, .max_rows = 64, .max_crops = 4});
  const auto a = rig.line_up_picture(1, 3), b = rig.line_up_picture(2, 3);
  const StepPlan plan = rig.step();
  ASSERT_EQ(plan.crops.size(), 2u);
  EXPECT_EQ(plan.crops[0].picture, a);
  EXPECT_TRUE(plan.crops[0].is_last);
  EXPECT_EQ(plan.crops[1].picture, b);
  EXPECT_EQ(plan.crops[1].count, 1);
  EXPECT_FALSE(plan.crops[1].is_last);
  EXPECT_TRUE(rig.step().crops.at(0).is_last);
  EXPECT_EQ(rig.scheduler.num_queued_crops(), 0);
}

TEST(Scheduler, AVisionBatchWaitsForOthersNoLongerThanItsBound) {
  Rig rig({.max_sequences = 8, .max_rows = 64, .max_crops = 4, .vision_wait_ms = 5});
  rig.line_up(3);
  rig.step();
  rig.line_up_picture(1, 1);
  EXPECT_EQ(rig.step(/*more_pictures=*/true).num_crops, 0);
  EXPECT_EQ(rig.scheduler.next_wakeup_ms(), 5);
  rig.now_ms = 5;
  EXPECT_EQ(rig.step(/*more_pictures=*/true).num_crops, 1);
}

TEST(Scheduler, APictureThatNobodyWantsIsDropped) {
  Rig rig;
  const auto job = rig.line_up_picture(1, 5);
  rig.step();
  rig.scheduler.drop_picture(*job);
  EXPECT_EQ(rig.scheduler.num_queued_crops(), 0);
  EXPECT_TRUE(rig.step().empty());
}

TEST(Scheduler, PicturesAndPromptsStallRunningAnswersNoLongerThanAllowed) {
  Rig rig({.max_sequences = 8, .max_rows = 500, .max_crops = 8, .max_stall_ms = 100});
  Generation& running = rig.line_up(3);
  rig.step();
  rig.costs = {
      .crop_ms = 30, .row_ms = 1, .service = {}, .encoded_service = {}, .pictured_service = {}};
  Generation& large = rig.line_up(300);
  rig.line_up_picture(1, 8);
  int crops = 0, prompt = 0;
  for (int i = 0; i < 12; ++i) {
    const StepPlan plan = rig.step();
    EXPECT_EQ(rows_of(plan, running), 1);
    EXPECT_LE(plan.num_crops * 30 + plan.num_prefill_rows, 100 + 30);
    crops += plan.num_crops;
    prompt += plan.num_prefill_rows;
  }
  EXPECT_EQ(crops, 8);
  EXPECT_EQ(prompt, 300);  // the beginning of sequence is cached
  EXPECT_GE(large.sequence->num_generated(), 1);
}

TEST(Scheduler, ThePlaceInLineDecidesWhoIsAdmitted) {
  Rig rig({.max_sequences = 1, .max_rows = 64, .max_crops = 2});
  Generation& late = rig.line_up(3, {}, 2000);
  Generation& early = rig.line_up(3, {}, 1000);
  const StepPlan plan = rig.step();
  EXPECT_EQ(rows_of(plan, late), 0);
  EXPECT_GT(rows_of(plan, early), 0);
}

TEST(Scheduler, NobodyOvertakesTheOneThatNeedsMorePages) {
  Rig rig({.max_sequences = 8, .max_rows = 200, .max_crops = 2}, 6);
  rig.line_up(60);  // four pages of six
  Generation& large = rig.line_up(60);
  Generation& small = rig.line_up(3);
  const StepPlan plan = rig.step();
  EXPECT_EQ(rows_of(plan, large), 0);
  EXPECT_EQ(rows_of(plan, small), 0);
}

TEST(Scheduler, TheNewestIsPreemptedWhenPagesRunOutAndStartsAgainFromItsPlace) {
  Rig rig({.max_sequences = 8, .max_rows = 200, .max_crops = 2}, 4);
  Generation& older = rig.line_up(30);  // 31 positions: two pages, full after one word
  Generation& newer = rig.line_up(30);
  while (rig.scheduler.num_preemptions() == 0) rig.step();
  EXPECT_EQ(newer.state, Generation::State::kWaiting);
  EXPECT_EQ(older.state, Generation::State::kRunning);
  EXPECT_TRUE(rig.scheduler.remove(older));
  EXPECT_GT(rows_of(rig.step(), newer), 0);
}

TEST(Scheduler, WhoCannotMeetItsDeadlineMakesRoomForOthersBeforeItStarts) {
  Rig rig;
  Generation& late = rig.line_up(3);
  Generation& other = rig.line_up(3);
  late.deadline_ms = 50;
  rig.costs.service = TimeEstimate(60);
  const StepPlan plan = rig.step();
  EXPECT_EQ(rows_of(plan, late), 0);
  EXPECT_GT(rows_of(plan, other), 0);
  EXPECT_EQ(rig.scheduler.take_hopeless(), std::vector{&late});
}

TEST(Scheduler, ADeadlineThatEstimatesRuleOutIsTriedWhenNobodyElseWaits) {
  Rig rig;
  rig.line_up(3);
  rig.step();
  Generation& generation = rig.line_up(3);
  generation.deadline_ms = 50;
  rig.costs.service = TimeEstimate(60);
  EXPECT_GT(rows_of(rig.step(), generation), 0);
  EXPECT_TRUE(rig.scheduler.take_hopeless().empty());
}

TEST(Scheduler, APictureThatComesTooLateIsGivenUpBeforeItIsEncoded) {
  Rig rig;
  rig.line_up(3);
  rig.step();
  rig.costs.encoded_service = TimeEstimate(60);
  const auto late = rig.line_up_picture(1, 3), in_time = rig.line_up_picture(2, 3);
  late->deadline_ms = 50;
  in_time->deadline_ms = 70;
  const StepPlan plan = rig.step();
  ASSERT_EQ(plan.crops.size(), 1u);
  EXPECT_EQ(plan.crops[0].picture, in_time);
  EXPECT_EQ(rig.scheduler.take_hopeless_pictures(), std::vector{late});
  EXPECT_EQ(rig.scheduler.num_queued_crops(), 1);
}

TEST(Scheduler, WhatIsBeingEncodedIsNotGivenUp) {
  Rig rig;
  const auto job = rig.line_up_picture(1, 3);
  job->deadline_ms = 50;
  rig.step();
  rig.costs.encoded_service = TimeEstimate(60);
  rig.line_up(3);
  EXPECT_TRUE(rig.step().crops.at(0).is_last);
  EXPECT_TRUE(rig.scheduler.take_hopeless_pictures().empty());
}

TEST(Scheduler, OfPicturesThatAllComeTooLateTheOneWithTheMostTimeLeftIsTried) {
  Rig rig;
  rig.costs.encoded_service = TimeEstimate(60);
  const auto sooner = rig.line_up_picture(1, 1), later = rig.line_up_picture(2, 1);
  sooner->deadline_ms = 40;
  later->deadline_ms = 50;
  EXPECT_EQ(rig.step().crops.at(0).picture, later);
  EXPECT_EQ(rig.scheduler.take_hopeless_pictures(), std::vector{sooner});
}

TEST(Scheduler, ASequenceThatLeavesWhileItsStepRunsKeepsItsPagesUntilThen) {
  Rig rig;
  Generation& generation = rig.line_up(3);
  const StepPlan plan = rig.scheduler.plan(0, rig.costs, false);
  const int free = rig.pages.num_free();
  EXPECT_FALSE(rig.scheduler.remove(generation));
  EXPECT_EQ(rig.pages.num_free(), free);
  std::vector<Generation*> left;
  rig.scheduler.commit(plan, left);
  EXPECT_EQ(left, std::vector<Generation*>{&generation});
  rig.cache.clear();
  EXPECT_EQ(rig.pages.num_free(), rig.pages.num_pages());
}

}  // namespace
}  // namespace fovea
