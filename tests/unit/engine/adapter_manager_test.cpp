// Adapters that come, go and take turns while requests run, around a fake model.

#include "engine/adapter_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <random>

#include "support/loop_rig.h"

namespace fovea {
namespace {

using namespace testing_support;  // the loop's rig

// Slots, files of the same name as their adapters, and an engine.
struct AdapterRig {
  explicit AdapterRig(int num_slots, std::initializer_list<std::string> names = {},
                      int max_sequences = 16, int depth = 1)
      : store(num_slots), rig(max_sequences, 400, depth, 1 << 20, &store) {
    for (const std::string& name : names) {
      store.write(name, "weights of " + name);
      EXPECT_TRUE(adapters().load(name, name).ok());
    }
  }
  AdapterManager& adapters() { return rig.loop->adapters(); }

  static Request ask_with(const std::string& adapter, const std::string& question = "what is it",
                          std::optional<Picture> about = {}) {
    Request request = ask(question, std::move(about));
    request.adapter = adapter;
    return request;
  }
  std::string answer(const std::string& adapter) {
    const Result<Response> response = rig.run(ask_with(adapter, "what is it", Picture(picture(1))));
    return response.ok() ? response->text : response.error().message;
  }
  AdapterInfo info(const std::string& name) {
    for (const AdapterInfo& info : adapters().list()) {
      if (info.name == name) return info;
    }
    return {};
  }

  FakeAdapterStore store;
  Rig rig;
};

TEST(Adapters, ALoadedOneAnswersAndAnUnloadedOneIsUnknown) {
  AdapterRig rig(2);
  const std::string plain = rig.answer("");
  rig.store.write("file", "weights");
  ASSERT_TRUE(rig.adapters().load("french", "file").ok());
  EXPECT_EQ(rig.info("french").rank, 1);
  EXPECT_EQ(rig.info("french").path, "file");
  const std::string adapted = rig.answer("french");
  EXPECT_NE(adapted, plain);
  EXPECT_GE(rig.info("french").slot, 0);
  ASSERT_TRUE(rig.adapters().unload("french").ok());
  EXPECT_THAT(rig.answer("french"), testing::HasSubstr("no adapter named french"));
  EXPECT_EQ(rig.adapters().unload("french").error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(rig.adapters().list().empty());
  rig.rig.expect_nothing_left();
}

TEST(Adapters, AMissingOrBrokenFileFailsItsLoadAlone) {
  AdapterRig rig(1, {"good"});
  rig.store.write("bad", "broken");
  const Status missing = rig.adapters().load("x", "nowhere"),
               broken = rig.adapters().load("x", "bad");
  ASSERT_FALSE(missing.ok() || broken.ok());
  EXPECT_THAT(missing.error().message, testing::HasSubstr("nowhere"));
  EXPECT_THAT(broken.error().message, testing::HasSubstr("bad is broken"));
  EXPECT_EQ(rig.adapters().list().size(), 1u);
  EXPECT_FALSE(rig.adapters().load("", "good").ok());
  EXPECT_TRUE(rig.rig.run(AdapterRig::ask_with("good")).ok());
}

TEST(Adapters, AnEngineWithoutSlotsSaysSo) {
  Rig rig;
  const Status refused = rig.loop->adapters().load("x", "file");
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, testing::HasSubstr("adapter_slots"));
}

TEST(Adapters, MoreThanThereAreSlotsTakeTurns) {
  const std::initializer_list<std::string> names{"a", "b", "c", "d", "e"};
  std::map<std::string, std::string> expected;
  {
    AdapterRig alone(1, names, 1);
    for (const std::string& name : names) expected[name] = alone.answer(name);
    expected[""] = alone.answer("");
  }
  for (const int depth : {1, 2}) {
    for (const int num_slots : {1, 2, 4}) {
      AdapterRig rig(num_slots, names, 8, depth);
      std::mt19937 random(static_cast<unsigned>(num_slots));
      std::vector<std::pair<std::string, std::future<Result<Response>>>> futures;
      for (int i = 0; i < 300; ++i) {
        const std::size_t pick = random() % 6;
        const std::string name = pick == 5 ? "" : *(names.begin() + pick);
        futures.emplace_back(
            name, rig.rig.submit(AdapterRig::ask_with(name, "what is it", Picture(picture(1)))));
      }
      for (auto& [name, future] : futures) {
        const Result<Response> response = future.get();
        ASSERT_TRUE(response.ok()) << response.error().message;
        EXPECT_EQ(response->text, expected[name]);
      }
      EXPECT_GT(rig.store.num_uploads(), 5);
      EXPECT_GT(rig.rig.runner.largest_batch, 1);
      rig.rig.expect_nothing_left();
    }
  }
}

TEST(Adapters, ALoadHoldsUpNobodyElse) {
  AdapterRig rig(2, {"fast"});
  ASSERT_TRUE(rig.rig.run(AdapterRig::ask_with("fast")).ok());
  rig.store.write("slow", "weights");
  rig.store.shut();
  ASSERT_TRUE(rig.adapters().load("slow", "slow").ok());
  auto waiting = rig.rig.submit(AdapterRig::ask_with("slow"));
  // Others come and go while it waits.
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(rig.rig.run(AdapterRig::ask_with(i % 2 == 0 ? "fast" : "")).ok());
  }
  EXPECT_EQ(waiting.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  EXPECT_EQ(rig.info("slow").num_waiting, 1);
  rig.store.open();
  EXPECT_TRUE(waiting.get().ok());
}

TEST(Adapters, CancelsAndDeadlinesEndARequestThatWaitsForItsAdapter) {
  AdapterRig rig(1);
  rig.store.write("slow", "weights");
  rig.store.shut();
  ASSERT_TRUE(rig.adapters().load("slow", "slow").ok());
  std::uint64_t id = 0;
  auto cancelled = rig.rig.submit(AdapterRig::ask_with("slow"), &id);
  Request late = AdapterRig::ask_with("slow");
  late.deadline_ms = 1;
  auto expired = rig.rig.submit(std::move(late));
  rig.rig.loop->cancel(id);
  EXPECT_EQ(cancelled.get().error().code, ErrorCode::kCancelled);
  EXPECT_EQ(expired.get().error().code, ErrorCode::kDeadlineExceeded);
  rig.store.open();
  EXPECT_TRUE(rig.rig.run(AdapterRig::ask_with("slow")).ok());
  rig.rig.expect_nothing_left();
}

TEST(Adapters, AFileThatIsGoneOrChangedFailsOnlyThoseWhoNameIt) {
  AdapterRig rig(1, {"a", "b"});
  ASSERT_TRUE(rig.rig.run(AdapterRig::ask_with("a")).ok());
  ASSERT_TRUE(rig.rig.run(AdapterRig::ask_with("b")).ok());  // took the only slot
  rig.store.remove("a");
  auto good = rig.rig.submit(AdapterRig::ask_with("b"));
  const Result<Response> gone = rig.rig.run(AdapterRig::ask_with("a"));
  ASSERT_FALSE(gone.ok());
  EXPECT_EQ(gone.error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(good.get().ok());
  rig.store.write("a", "other weights");
  const Result<Response> changed = rig.rig.run(AdapterRig::ask_with("a"));
  ASSERT_FALSE(changed.ok());
  EXPECT_THAT(changed.error().message, testing::HasSubstr("has changed since it was loaded"));
  rig.store.write("a", "weights of a");  // as it was
  EXPECT_TRUE(rig.rig.run(AdapterRig::ask_with("a")).ok());
  EXPECT_TRUE(rig.rig.run(AdapterRig::ask_with("b")).ok());
  rig.rig.expect_nothing_left();
}

TEST(Adapters, AReloadNeverMeetsTheOldOnesCachedBeginnings) {
  AdapterRig rig(2, {"a"});
  const std::string before = rig.answer("a");
  EXPECT_EQ(rig.answer("a"), before);  // now its beginning is cached
  rig.store.write("a", "better weights");
  ASSERT_TRUE(rig.adapters().load("a", "a").ok());
  const Result<Response> after =
      rig.rig.run(AdapterRig::ask_with("a", "what is it", Picture(picture(1))));
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(after->usage.cached_tokens, 0);
  EXPECT_NE(after->text, before);
  rig.rig.expect_nothing_left();
}

TEST(Adapters, RequestsEndWithTheAdapterTheyCameWith) {
  AdapterRig rig(2, {"a"});
  const std::string old_answer = rig.answer("a");
  rig.rig.runner.close();
  auto running = rig.rig.submit(AdapterRig::ask_with("a", "what is it", Picture(picture(1))));
  rig.store.write("a", "better weights");
  ASSERT_TRUE(rig.adapters().load("a", "a").ok());
  auto later = rig.rig.submit(AdapterRig::ask_with("a", "what is it", Picture(picture(1))));
  ASSERT_TRUE(rig.adapters().unload("a").ok());
  rig.rig.runner.open();
  EXPECT_EQ(running.get()->text, old_answer);
  const Result<Response> answer = later.get();
  ASSERT_TRUE(answer.ok());
  EXPECT_NE(answer->text, old_answer);
  rig.rig.expect_nothing_left();
}

// Everybody who runs keeps its slot, and yet nobody waits for ever.
TEST(AdapterResidency, TheSlotNotUsedForLongestIsClosedWhenAllAreInUse) {
  const auto entry = [](const char* name) {
    auto made = std::make_shared<AdapterEntry>();
    made->name = name;
    return made;
  };
  const AdapterHandle a = entry("a"), b = entry("b"), c = entry("c");
  AdapterResidency residency(2);
  for (const AdapterHandle& first : {a, b}) {
    EXPECT_FALSE(residency.is_ready(first));
    const auto fetch = residency.next_fetch();
    ASSERT_TRUE(fetch);
    EXPECT_FALSE(residency.is_ready(first));  // on its way
    residency.loaded(*fetch);
    EXPECT_TRUE(residency.is_ready(first));
    residency.pin(*first);
  }
  EXPECT_FALSE(residency.is_ready(c));
  EXPECT_FALSE(residency.next_fetch());
  EXPECT_FALSE(residency.is_ready(a));  // closed: it was used before b
  EXPECT_TRUE(residency.is_ready(b));
  EXPECT_FALSE(residency.next_fetch());
  residency.unpin(*a);
  const auto fetch = residency.next_fetch();
  ASSERT_TRUE(fetch);
  EXPECT_EQ(fetch->entry, c);
  EXPECT_EQ(a->slot, -1);
  residency.loaded(*fetch);
  EXPECT_TRUE(residency.is_ready(c));
  residency.unpin(*b);  // a, which is next in line, takes it
  const auto next = residency.next_fetch();
  ASSERT_TRUE(next);
  EXPECT_EQ(next->entry, a);
  residency.failed(*next);
  EXPECT_FALSE(residency.is_ready(b));
}

TEST(AdapterResidency, AClosedSlotOpensAgainWhenAnotherComesFree) {
  AdapterResidency residency(2);
  std::vector<AdapterHandle> entries;
  for (int i = 0; i < 3; ++i) entries.push_back(std::make_shared<AdapterEntry>());
  for (int i = 0; i < 2; ++i) {
    EXPECT_FALSE(residency.is_ready(entries[static_cast<std::size_t>(i)]));
    residency.loaded(*residency.next_fetch());
    residency.pin(*entries[static_cast<std::size_t>(i)]);
  }
  EXPECT_FALSE(residency.is_ready(entries[2]));
  EXPECT_FALSE(residency.next_fetch());  // closes the first
  EXPECT_FALSE(residency.is_ready(entries[0]));
  residency.unpin(*entries[1]);
  const auto fetch = residency.next_fetch();
  ASSERT_TRUE(fetch);
  EXPECT_EQ(fetch->entry, entries[2]);
  residency.loaded(*fetch);
  EXPECT_FALSE(residency.next_fetch());
  EXPECT_TRUE(residency.is_ready(entries[0]));
}

}  // namespace
}  // namespace fovea
