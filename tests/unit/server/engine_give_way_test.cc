// Requests that lose their places to others: less urgent ones, and those whose readers are slow.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memory/base/error_detail.h"
#include "tests/unit/server/fake_engine_parts.h"

namespace lorad {
namespace {

using std::chrono::milliseconds;
using testing::SizeIs;

struct EngineGiveWayTest : LoopTest {
  // One place; each step takes 20 ms.
  EngineFixture f{60, [](EngineOptions* o) {
                    o->policy.max_sequences = 1;
                    o->slow_reader_timeout = std::chrono::seconds(2);
                  }};
  EngineGiveWayTest() {
    f.executor.on_step = [this] { f.clock.Advance(milliseconds(20)); };
  }
  void Steps(int steps) {
    for (int i = 0; i < steps; ++i) {
      if (!f.engine->Step()) f.clock.Advance(milliseconds(20));
    }
  }
  // A request whose reader has stopped reading, and has lost its place to another one.
  EngineFixture::Handle Park(EngineFixture::Handle* other) {
    EngineFixture::Handle slow = f.Submit(slow_request);
    Steps(12);
    EXPECT_EQ(f.engine->Snapshot().gauges.running, 1) << "nobody lacks its place";
    *other = f.Submit({.prompt = {5, 6}, .max_tokens = 30});
    Steps(3);
    EXPECT_EQ(f.engine->Snapshot().gauges.parked, 1);
    EXPECT_EQ(f.engine->Snapshot().gauges.running, 1);
    EXPECT_EQ(f.observer.parked, 1);
    EXPECT_EQ(f.observer.gave_way + f.observer.preemptions, 0);
    return slow;
  }
  const EngineFixture::Request slow_request{
      .prompt = {1, 2, 3}, .max_tokens = 20, .adapter = FakeAdapter(1, 3), .capacity = 4};
};
INSTANTIATE_TEST_SUITE_P(Loops, EngineGiveWayTest, testing::Bool(), LoopName);

TEST_P(EngineGiveWayTest, UrgentRequestsTakeThePlaceOfOthers) {
  f.load_now = true;
  const EngineFixture::Request batch{
      .prompt = {1, 2, 3}, .max_tokens = 20, .priority = Priority::kBatch};
  EngineFixture::Handle first = f.Submit(batch);
  Steps(5);
  EngineFixture::Handle urgent =
      f.Submit({.prompt = {7}, .max_tokens = 3, .priority = Priority::kInteractive});
  Steps(6);
  urgent.Collect();
  first.Collect();
  EXPECT_TRUE(urgent.end.has_value());
  EXPECT_FALSE(first.end.has_value());
  EXPECT_EQ(f.observer.gave_way, 1);
  f.RunUntilIdle();
  first.Collect();
  ASSERT_TRUE(first.end.has_value() && first.end->status.ok());
  EXPECT_EQ(first.end->timings.preemptions, 1);
  EXPECT_EQ(first.tokens, EngineFixture(60).RunAlone(batch));
  EXPECT_EQ(f.kv_pages(), 0u);
}

TEST_P(EngineGiveWayTest, WhoHadToWaitLongIsNotSentBack) {
  f.load_now = true;
  const auto ask = [this](Priority priority) {
    return f.Submit({.prompt = {1, 2, 3}, .max_tokens = 20, .priority = priority});
  };
  EngineFixture::Handle first = ask(Priority::kStandard);
  Steps(2);
  EngineFixture::Handle batch = ask(Priority::kBatch);
  Steps(1);
  f.clock.Advance(2 * SchedulerPolicy{}.ageing);
  Steps(21);
  first.Collect();
  EXPECT_TRUE(first.end.has_value());
  EngineFixture::Handle second = ask(Priority::kStandard);
  Steps(25);
  batch.Collect();
  second.Collect();
  EXPECT_TRUE(batch.end.has_value());
  EXPECT_FALSE(second.end.has_value());
  EXPECT_EQ(f.observer.gave_way, 0);
  f.RunUntilIdle();
}

TEST_P(EngineGiveWayTest, ParkedRequestsGoOnWhenTheirReadersHaveCaughtUp) {
  f.load_now = true;
  EngineFixture::Handle other;
  EngineFixture::Handle slow = Park(&other);
  EXPECT_EQ(slow_request.adapter->activity->active.load(), 1) << "it is still a request on it";
  while (!slow.end.has_value()) {
    slow.Collect();
    ASSERT_LT(f.clock.Now(), TimePoint{} + std::chrono::minutes(1));
    Steps(1);
  }
  EXPECT_TRUE(slow.end->status.ok()) << slow.end->status;
  f.RunUntilIdle();
  other.Collect();
  EXPECT_THAT(other.tokens, SizeIs(30));
  EngineFixture alone(60);
  alone.load_now = true;
  EngineFixture::Request same = slow_request;
  same.capacity = 1000;
  same.adapter = FakeAdapter(1, 3);
  EXPECT_EQ(slow.tokens, alone.RunAlone(same));
  EXPECT_EQ(f.kv_pages(), 0u);
}

TEST_P(EngineGiveWayTest, ParkedRequestsEndLikeOthers) {
  f.load_now = true;
  EngineFixture::Handle other;
  {
    EngineFixture::Handle slow = Park(&other);
    f.engine->Cancel(*slow.id);
    Steps(1);
    slow.Collect();
    ASSERT_TRUE(slow.end.has_value());
    EXPECT_TRUE(absl::IsCancelled(slow.end->status));
    f.RunUntilIdle();
    f.observer.parked = 0;
  }
  {
    EngineFixture::Handle slow = Park(&other);
    Steps(150);
    slow.Collect();
    ASSERT_TRUE(slow.end.has_value());
    EXPECT_EQ(GetErrorDetail(slow.end->status).reason, "SLOW_CONSUMER");
    f.RunUntilIdle();
    f.observer.parked = 0;
  }
  EngineFixture::Handle slow = Park(&other);
  f.engine->Start();
  f.engine->Stop();
  slow.Collect();
  ASSERT_TRUE(slow.end.has_value());
  EXPECT_TRUE(absl::IsUnavailable(slow.end->status)) << slow.end->status;
  EXPECT_EQ(f.engine->unfinished(), 0);
  EXPECT_EQ(slow_request.adapter->activity->active.load(), 0);
}

TEST_P(EngineGiveWayTest, WhoIsCancelledWhenItsReaderIsTooSlowEndsOnce) {
  f.load_now = true;
  EngineFixture::Handle slow = f.Submit(slow_request);
  Steps(12);
  f.clock.Advance(std::chrono::seconds(3));
  f.engine->Cancel(*slow.id);
  Steps(2);
  slow.Collect();
  ASSERT_TRUE(slow.end.has_value());
  EXPECT_TRUE(absl::IsCancelled(slow.end->status)) << slow.end->status;
  EXPECT_EQ(f.engine->unfinished(), 0);
}

}  // namespace
}  // namespace lorad
