// Memory that runs out, at any allocation, on any thread of the engine: the request that it was for
// ends, everybody else gets the answer they would have got, and nothing is lost.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/failing_new.h"
#include "support/instrumented.h"
#include "support/loop_rig.h"

namespace fovea {
namespace {

using namespace testing_support;  // the loop's rig

// Text alone and pictures, known and new, with and without adapters, more than run at once.
std::vector<Request> faulty_load() {
  std::vector<Request> requests;
  for (int i = 0; i < 12; ++i) {
    std::optional<Picture> about;
    if (i % 3 != 0) about = Picture(picture(i % 5));
    Request request = ask(i % 2 == 0 ? "what is it" : "how many dogs are there", about,
                          static_cast<std::uint64_t>(i));
    request.sampling.max_tokens = 5 + i;
    if (i % 4 == 1) request.sampling.ignore_eos = true;
    if (i % 4 == 2) request.adapter = i % 8 == 2 ? "a" : "b";
    requests.push_back(std::move(request));
  }
  return requests;
}

struct FaultRig {
  explicit FaultRig(int depth) : store(1), rig(4, 24, depth, 1 << 20, &store) {
    for (const char* name : {"a", "b"}) {
      store.write(name, name);
      EXPECT_TRUE(rig.loop->adapters().load(name, name).ok());
    }
  }
  FakeAdapterStore store;
  Rig rig;
};

struct Outcome {
  std::future<Result<Response>> answer;
  std::string streamed;
};

std::vector<std::string> expected_answers() {
  FaultRig rig(1);
  std::vector<std::string> answers;
  for (const Request& request : faulty_load()) answers.push_back(rig.rig.run(request)->text);
  return answers;
}

struct Toll {
  int failures = 0;  // allocations
  int lost = 0;      // requests
};

// Runs everything with `count` allocations failing from the k-th on.
Toll run_with_failures(int depth, int first, int count, const std::vector<std::string>& expected) {
  const ExemptFromFailing exempt;
  FaultRig rig(depth);
  std::vector<Outcome> outcomes(expected.size());
  const std::vector<Request> all = faulty_load();
  int num_failed = 0, num_lost = 0;
  {
    const FailingNew failing(first, count);
    for (std::size_t i = 0; i < all.size(); ++i) {
      outcomes[i].streamed.reserve(200);
      outcomes[i].answer = rig.rig.submit(all[i], nullptr, [&outcomes, i](std::string_view text) {
        outcomes[i].streamed += text;
        return true;
      });
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
      const Result<Response> response = outcomes[i].answer.get();
      if (response.ok()) {
        EXPECT_EQ(response->text, expected[i]) << i;
        EXPECT_EQ(outcomes[i].streamed, expected[i]) << i;
        continue;
      }
      ++num_lost;
      EXPECT_EQ(response.error().code, ErrorCode::kResourceExhausted) << response.error().message;
    }
    num_failed = FailingNew::num_failed();
  }
  // A failure may strike a picture that several wait for, or an adapter; never everybody.
  if (count == 1) {
    EXPECT_LE(num_lost, 4) << "allocation " << first;
  }
  // And afterwards all is as before.
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Result<Response> response = rig.rig.run(all[i]);
    EXPECT_TRUE(response.ok()) << response.error().message;
    if (!response.ok()) continue;
    EXPECT_EQ(response->text, expected[i]) << i;
  }
  rig.rig.expect_nothing_left();
  return {num_failed, num_lost};
}

TEST(Faults, AnyAllocationMayFailAndOnlyItsRequestEnds) {
  // Where a sanitizer watches, one in three, others at each depth: the requests are alike.
  constexpr int kStride = kInstrumented ? 3 : 1;
  const std::vector<std::string> expected = expected_answers();
  for (const int depth : {1, 2}) {
    int num_struck = 0, num_lost = 0;
    for (int k = kInstrumented ? depth : 1; k < 2500; k += kStride * (k < 600 ? 1 : 13)) {
      const Toll toll = run_with_failures(depth, k, 1, expected);
      num_struck += toll.failures;
      num_lost += toll.lost;
      if (testing::Test::HasFailure()) FAIL() << "allocation " << k << " of depth " << depth;
    }
    EXPECT_GT(num_struck, 600 / kStride);
    EXPECT_GT(num_lost, 300 / kStride);
  }
}

TEST(Faults, ManyAllocationsMayFailInARow) {
  const std::vector<std::string> expected = expected_answers();
  for (const int depth : {1, 2}) {
    for (int k = 1; k < 1500; k += 37) {
      run_with_failures(depth, k, 40, expected);
      if (testing::Test::HasFailure()) FAIL() << "allocation " << k << " of depth " << depth;
    }
  }
}

TEST(Faults, ACallerWithoutMemoryIsToldSo) {
  FaultRig rig(1);
  int num_refused = 0;
  for (int k = 1; k < 60; ++k) {
    auto answer = std::make_shared<std::promise<Result<Response>>>();
    std::future<Result<Response>> future = answer->get_future();
    Request request = ask("what is it", Picture(picture(1)));
    Callbacks callbacks{
        .on_done = [answer](Result<Response> response) { answer->set_value(std::move(response)); }};
    Result<std::uint64_t> id = Error{};
    {
      const FailingNew failing(k);
      id = rig.rig.loop->submit(std::move(request), std::move(callbacks));
      if (id.ok()) future.wait();
    }
    if (id.ok()) continue;
    EXPECT_EQ(id.error().code, ErrorCode::kResourceExhausted) << id.error().message;
    ++num_refused;
  }
  EXPECT_GT(num_refused, 10);
  EXPECT_TRUE(rig.rig.run(ask("what is it")).ok());
  rig.rig.expect_nothing_left();
}

// A request that no step can be launched with, whatever is beside it.
TEST(Faults, AStepThatCannotBeLaunchedEndsOnlyWhomItFailsFor) {
  for (const int depth : {1, 2}) {
    Rig rig(8, 400, depth);
    const Result<Response> expected = rig.run(ask("good", Picture(picture(1)), 3));
    rig.runner.fail_launch_with = [](const StepPlan& plan) -> Status {
      for (const PlannedRows& rows : plan.rows) {
        if (rows.generation->sampling.seed == 666) throw std::bad_alloc();
      }
      return {};
    };
    rig.runner.close();
    std::vector<std::future<Result<Response>>> good, bad;
    for (int i = 0; i < 12; ++i) {
      if (i % 4 == 2) {
        bad.push_back(rig.submit(ask("bad", Picture(picture(1)), 666)));
      } else {
        good.push_back(rig.submit(ask("good", Picture(picture(1)), 3)));
      }
    }
    rig.runner.open();
    for (auto& future : good) {
      const Result<Response> response = future.get();
      ASSERT_TRUE(response.ok()) << response.error().message;
      EXPECT_EQ(response->text, expected->text);
    }
    for (auto& future : bad) EXPECT_EQ(future.get().error().code, ErrorCode::kResourceExhausted);
    rig.expect_nothing_left();
  }
}

TEST(Faults, APictureWithoutDeviceMemoryEndsItsOwnRequestsAlone) {
  Rig rig;
  rig.runner.no_memory_for = [](const PictureJob& job) { return job.crops.pixels[30] == 7; };
  auto text = rig.submit(ask("text"));
  auto good = rig.submit(ask("good", Picture(picture(1))));
  auto bad = rig.submit(ask("bad", Picture(picture(7))));
  EXPECT_TRUE(text.get().ok());
  EXPECT_TRUE(good.get().ok());
  EXPECT_EQ(bad.get().error().code, ErrorCode::kResourceExhausted);
  rig.expect_nothing_left();
}

}  // namespace
}  // namespace fovea
