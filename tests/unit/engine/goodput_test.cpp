// The scheduler under twice the load that it can bear, on a clock of the test's own: steps take
// what a formula says, so that the same requests finish in time on every machine.

#include <algorithm>
#include <cstring>
#include <gtest/gtest.h>
#include <list>
#include <random>

#include "engine/scheduler.h"
#include "support/pages.h"

namespace fovea {
namespace {

using testing_support::kPageSize;

constexpr int kPrompt = 20, kImageTokens = 30, kSequences = 8;

struct Arrival {
  double at_ms = 0;
  int answer = 0;  // words
  int crops = 0;   // of a picture of its own; 0: none
};

// Words differ from answer to answer, as they do in life: what one needs is not known before.
std::vector<Arrival> arrivals(int count, double rate_per_ms, bool pictures = false) {
  std::mt19937 random(7);
  std::vector<Arrival> list;
  double at_ms = 0;
  for (int i = 0; i < count; ++i) {
    if (rate_per_ms > 0) {
      at_ms += std::exponential_distribution<double>(rate_per_ms)(random);
    }
    list.push_back({at_ms, std::uniform_int_distribution<int>(10, 40)(random)});
    if (pictures) list.back().crops = std::uniform_int_distribution<int>(2, 9)(random);
  }
  return list;
}

struct Simulated {
  int in_time = 0, late = 0, given_up = 0;
  double seconds = 0;
  double goodput() const { return in_time / seconds; }
};

/// The engine's loop around a scheduler, with time as a number.
class Simulation {
 public:
  Simulation(std::vector<Arrival> arrivals, double deadline_ms)
      : arrivals_(std::move(arrivals)), deadline_ms_(deadline_ms) {}

  /// Begins with an estimate of its own.
  void believe(double service_ms) {
    costs_.service = costs_.encoded_service = TimeEstimate(service_ms);
  }

  /// On a machine that others share: for seconds at a time, everything takes half as long again.
  void change_speed() { changes_speed_ = true; }

  Simulated run() {
    std::size_t next = 0, ended = 0;
    while (ended < arrivals_.size()) {
      while (next < arrivals_.size() && arrivals_[next].at_ms <= now_ms_) line_up(next++);
      ended += expire();
      const StepPlan plan = scheduler_.plan(now_ms_, costs_, false);
      for (Generation* hopeless : scheduler_.take_hopeless()) {
        running_.remove_if([&](const Active& active) { return &active.generation == hopeless; });
        ++outcome_.given_up;
        ++ended;
      }
      for (const auto& hopeless : scheduler_.take_hopeless_pictures()) {
        costs_.encoded_service.doubt();
        running_.remove_if([&](const Active& active) { return active.picture == hopeless; });
        ++outcome_.given_up;
        ++ended;
      }
      if (plan.empty()) {
        if (next < arrivals_.size()) now_ms_ = std::max(now_ms_, arrivals_[next].at_ms);
        continue;
      }
      now_ms_ += slowness() * (5 + 0.2 * plan.num_rows + 15 * plan.num_crops);
      ended += commit(plan);
    }
    outcome_.seconds = now_ms_ / 1000;
    return outcome_;
  }

 private:
  struct Active {
    Generation generation;
    std::shared_ptr<PictureJob> picture;  // null: none
    int left = 0;
    double admitted_ms = -1;
  };

  double slowness() {
    if (!changes_speed_) return 1;
    while (now_ms_ >= phase_ends_ms_) {
      phase_ends_ms_ += std::uniform_real_distribution<double>(300, 3000)(phases_);
      is_slow_ = !is_slow_;
    }
    return is_slow_ ? 1.5 : 1;
  }

  void line_up(std::size_t number) {
    Active& active = running_.emplace_back();
    active.left = arrivals_[number].answer;
    Prompt prompt{
        .bos = TokenId{1}, .picture = {}, .image_tokens = 0, .tokens = {}, .adapter = kNoAdapter};
    for (int i = 0; i < kPrompt; ++i) {
      prompt.tokens.push_back(Token::text(TokenId{static_cast<int>(number) * kPrompt + i}));
    }
    if (const int crops = arrivals_[number].crops; crops > 0) {
      active.picture = std::make_shared<PictureJob>();
      std::memcpy(active.picture->identity.data(), &number, sizeof number);
      active.picture->crops.tiling = {1, crops - 1};
      active.picture->queued_ms = now_ms_;
      prompt.picture = active.picture->identity;
      prompt.image_tokens = kImageTokens;
    }
    active.generation.sequence.emplace(pages_, cache_, kPageSize, std::move(prompt));
    active.generation.order = static_cast<std::int64_t>(number);
    active.generation.place_ms = arrivals_[number].at_ms;
    active.generation.max_new_tokens = 100;
    if (deadline_ms_ > 0) active.generation.deadline_ms = arrivals_[number].at_ms + deadline_ms_;
    if (active.picture == nullptr) return scheduler_.add(active.generation);
    if (deadline_ms_ > 0) active.picture->deadline_ms = active.generation.deadline_ms;
    scheduler_.add_picture(active.picture);
  }

  std::size_t expire() {
    return running_.remove_if([&](Active& active) {
      const double deadline = active.generation.deadline_ms;
      if (deadline <= 0 || deadline > now_ms_) return false;
      if (active.picture != nullptr) {
        scheduler_.drop_picture(*active.picture);
        if (active.picture->crops_planned > 0) {
          costs_.encoded_service.learn_broken_off(now_ms_ - active.picture->started_ms);
        }
      }
      if (active.admitted_ms >= 0) costs_.service.learn_broken_off(now_ms_ - active.admitted_ms);
      EXPECT_TRUE(scheduler_.remove(active.generation));
      ++outcome_.late;
      return true;
    });
  }

  std::size_t commit(const StepPlan& plan) {
    std::vector<Generation*> left;
    scheduler_.commit(plan, left);
    for (const PlannedCrops& crops : plan.crops) {
      if (!crops.is_last) continue;
      const auto active = std::find_if(running_.begin(), running_.end(), [&](const Active& each) {
        return each.picture == crops.picture;
      });
      if (active == running_.end()) continue;
      active->generation.sequence->set_image(std::make_shared<const EncodedImage>());
      active->generation.was_encoded = true;
      scheduler_.add(active->generation);
    }
    for (const PlannedRows& rows : plan.rows) {
      Active& active = *std::find_if(running_.begin(), running_.end(), [&](const Active& each) {
        return &each.generation == rows.generation;
      });
      if (active.admitted_ms < 0) active.admitted_ms = began_ms_;
      if (!rows.samples) continue;
      active.generation.sequence->append(Token::text(TokenId{7}));
      --active.left;
    }
    began_ms_ = now_ms_;
    return running_.remove_if([&](Active& active) {
      if (active.left > 0) return false;
      EXPECT_TRUE(scheduler_.remove(active.generation));
      costs_.service.learn(now_ms_ - active.admitted_ms);
      if (active.picture != nullptr) {
        costs_.encoded_service.learn(now_ms_ - active.picture->started_ms);
      }
      const double deadline = active.generation.deadline_ms;
      ++(deadline > 0 && deadline < now_ms_ ? outcome_.late : outcome_.in_time);
      return true;
    });
  }

  std::vector<Arrival> arrivals_;
  double deadline_ms_;
  PageAllocator pages_{400};
  PrefixCache cache_{pages_, kPageSize};
  AdapterResidency adapters_{1};
  Scheduler scheduler_{
      {.max_sequences = kSequences, .max_rows = 64, .max_crops = 2}, pages_, cache_, adapters_};
  StepCosts costs_;
  std::list<Active> running_;
  double now_ms_ = 0, began_ms_ = 0;
  bool changes_speed_ = false, is_slow_ = true;
  double phase_ends_ms_ = 0;
  std::mt19937 phases_{3};
  Simulated outcome_;
};

double capacity(bool pictures = false) {
  return Simulation(arrivals(1000, 0, pictures), 0).run().goodput();
}

TEST(Goodput, TwiceTheLoadLeavesItWithinATenthOfWhatCanBeAnswered) {
  const double most = capacity();
  const double deadline_ms = 4 * 1000 * kSequences / most;
  const Simulated overloaded = Simulation(arrivals(4000, 2 * most / 1000), deadline_ms).run();
  EXPECT_GT(overloaded.goodput(), 0.9 * most)
      << overloaded.in_time << " in time, " << overloaded.late << " late, " << overloaded.given_up
      << " given up";
  // Work is lost on what starts and is late; what is given up before it starts costs nothing.
  EXPECT_LT(overloaded.late, overloaded.given_up / 10);
}

TEST(Goodput, SoItDoesWhenEveryRequestBringsAPictureOfItsOwn) {
  const double most = capacity(true);
  const double deadline_ms = 4 * 1000 * kSequences / most;
  const Simulated overloaded = Simulation(arrivals(4000, 2 * most / 1000, true), deadline_ms).run();
  EXPECT_GT(overloaded.goodput(), 0.9 * most)
      << overloaded.in_time << " in time, " << overloaded.late << " late, " << overloaded.given_up
      << " given up";
  EXPECT_LT(overloaded.late, overloaded.given_up / 10);
}

TEST(Goodput, SoItDoesOnAMachineWhoseSpeedChanges) {
  Simulation all_at_once(arrivals(4000, 0), 0);
  all_at_once.change_speed();
  const double most = all_at_once.run().goodput();
  Simulation simulation(arrivals(8000, 2 * most / 1000), 4 * 1000 * kSequences / most);
  simulation.change_speed();
  const Simulated overloaded = simulation.run();
  EXPECT_GT(overloaded.goodput(), 0.9 * most)
      << overloaded.in_time << " in time, " << overloaded.late << " late, " << overloaded.given_up
      << " given up";
  EXPECT_LT(overloaded.late, overloaded.given_up / 10);
}

TEST(Goodput, AnEstimateOfPicturesThatIsMuchTooHighDoesNotShutThemOut) {
  const double most = capacity(true);
  Simulation simulation(arrivals(4000, most / 2000, true), 4 * 1000 * kSequences / most);
  simulation.believe(10 * 4 * 1000 * kSequences / most);
  EXPECT_GT(simulation.run().in_time, 2000);
}

TEST(Goodput, AnEstimateThatIsMuchTooHighDoesNotShutEverybodyOut) {
  const double most = capacity();
  Simulation simulation(arrivals(4000, most / 2000), 4 * 1000 * kSequences / most);
  simulation.believe(10 * 4 * 1000 * kSequences / most);  // ten times the deadline
  EXPECT_GT(simulation.run().in_time, 2000);
}

TEST(Goodput, AtHalfTheLoadNearlyEveryDeadlineIsMet) {
  const double most = capacity();
  const Simulated light =
      Simulation(arrivals(2000, most / 2000), 4 * 1000 * kSequences / most).run();
  EXPECT_GT(light.in_time, 1980);
}

}  // namespace
}  // namespace fovea
