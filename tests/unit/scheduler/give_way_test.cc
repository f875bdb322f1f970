#include "scheduler/give_way.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/scheduler/planner_fixture.h"

namespace lorad {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::IsEmpty;

SchedulerPolicy Policy(AdmissionMode admission = AdmissionMode::kNoEvict) {
  return {.max_step_tokens = 64,
          .max_sequences = 2,
          .max_chunk_tokens = 32,
          .page_tokens = 4,
          .kept_places_share = 0,
          .lower_class_share = 0,
          .admission = admission};
}

// Two batch sequences of so many pages have both places.
struct Full : PlannerFixture {
  explicit Full(const SchedulerPolicy& its = Policy()) : PlannerFixture(its) {
    Decode(1, 9, 3).priority = Priority::kBatch;
    Decode(2, 5, 2).priority = Priority::kBatch;
    free = 10;
  }
};

TEST(GiveWayTest, TheUrgentTakeAPlaceFromWhoHasTheLeastClaim) {
  Full f;
  f.Wait({.id = 5, .tokens = 4, .priority = Priority::kInteractive});
  StepPlan plan = f.Plan();
  EXPECT_THAT(plan.give_way, ElementsAre(2)) << "the youngest";
  EXPECT_THAT(plan.run, ElementsAre(StepPlan::Run{.id = 1, .tokens = 1}));
  EXPECT_THAT(plan.admit, IsEmpty());
  f.running.pop_back();
  EXPECT_THAT(f.Plan().admit, ElementsAre(5));
}

TEST(GiveWayTest, NobodyDoesForItsEquals) {
  Full f;
  f.Wait({.id = 5, .tokens = 4, .priority = Priority::kBatch});
  EXPECT_THAT(f.Plan().give_way, IsEmpty());
  // What has aged is not more urgent than what runs.
  f.now += std::chrono::hours(1);
  EXPECT_THAT(f.Plan().give_way, IsEmpty());
  f.running[1].priority = Priority::kInteractive;
  f.Wait({.id = 6, .tokens = 4, .priority = Priority::kStandard});
  EXPECT_THAT(f.Plan().give_way, ElementsAre(1));
}

TEST(GiveWayTest, NobodyWhoDidSoTooOften) {
  Full f;
  f.Wait({.id = 5, .tokens = 4, .priority = Priority::kInteractive});
  f.running[1].preemptions = f.policy.max_preemptions;
  EXPECT_THAT(f.Plan().give_way, ElementsAre(1));
  f.running[0].preemptions = f.policy.max_preemptions;
  EXPECT_THAT(f.Plan().give_way, IsEmpty());
}

TEST(GiveWayTest, NobodyWhoHadToWaitLong) {
  Full f;
  f.Wait({.id = 5, .tokens = 4, .priority = Priority::kInteractive});
  f.running[1].aged = true;
  EXPECT_THAT(f.Plan().give_way, ElementsAre(1));
  f.running[0].aged = true;
  EXPECT_THAT(f.Plan().give_way, IsEmpty());
}

TEST(GiveWayTest, NobodyBeforeItsFirstToken) {
  SchedulerPolicy policy = Policy();
  PlannerFixture f(policy);
  f.free = 10;
  f.Decode(1, 9, 3).priority = Priority::kBatch;
  f.Prompt(2, 8, 4).priority = Priority::kBatch;
  f.Wait({.id = 5, .tokens = 4, .priority = Priority::kInteractive});
  EXPECT_THAT(f.Plan().give_way, ElementsAre(1));
  f.running[0].preemptions = policy.max_preemptions;
  EXPECT_THAT(f.Plan().give_way, IsEmpty());
}

TEST(GiveWayTest, AsManyAsItsPagesNeedAndNobodyIfAllAreTooFew) {
  for (const AdmissionMode admission : {AdmissionMode::kNoEvict, AdmissionMode::kPromptOnly}) {
    SchedulerPolicy policy = Policy(admission);
    policy.max_sequences = 4;
    for (const int tokens : {12, 16, 20, 24}) {
      Full f(policy);
      f.free = 1;
      f.Wait({.id = 5, .tokens = tokens, .priority = Priority::kInteractive});
      const StepPlan plan = f.Plan();
      if (tokens == 12) {
        EXPECT_THAT(plan.give_way, ElementsAre(2)) << "one is free, two come";
      } else if (tokens == 24) {
        EXPECT_THAT(plan.give_way, ElementsAre(2, 1)) << "all there are";
      } else {
        EXPECT_THAT(plan.give_way, ElementsAre(2, 1));
      }
    }
    Full f(policy);
    f.free = 1;
    f.Wait({.id = 5, .tokens = 28, .priority = Priority::kInteractive});
    EXPECT_THAT(f.Plan().give_way, IsEmpty());
    EXPECT_EQ(f.Plan().reserved_for, 5u);
  }
}

TEST(GiveWayTest, WhoseReaderIsSlowGivesWayToAnybody) {
  Full f;
  f.now += std::chrono::hours(1);
  f.running[0].paused = true;
  f.running[0].paused_since = f.now - f.policy.parking_delay + milliseconds(1);
  f.running[0].preemptions = 100;
  f.Wait({.id = 5, .tokens = 4, .priority = Priority::kBatch});
  EXPECT_THAT(f.Plan().give_way, IsEmpty()) << "it may yet read";
  f.now += milliseconds(1);
  EXPECT_THAT(f.Plan().give_way, ElementsAre(1));
}

TEST(GiveWayTest, AnIdleSequenceIsTheFirstToLosePages) {
  SchedulerPolicy policy = Policy(AdmissionMode::kPromptOnly);
  PlannerFixture f(policy);
  f.Decode(1, 9, 2);  // lacks a page
  f.Decode(2, 5, 2);
  f.running[0].left_tokens = f.running[1].left_tokens = 10;
  f.running[0].paused_since = f.running[1].paused_since = TimePoint::max();
  f.now += std::chrono::hours(1);
  f.Decode(3, 40, 10).priority = Priority::kInteractive;
  f.running[2].paused = true;
  f.running[2].paused_since = {};
  EXPECT_THAT(f.Plan().preempt, ElementsAre(3));
}

TEST(GiveWayTest, NobodyIfThePolicySaysSo) {
  SchedulerPolicy policy = Policy();
  policy.give_way = false;
  Full f(policy);
  f.running[0].paused = true;
  f.running[0].paused_since = {};
  f.now += std::chrono::hours(1);
  f.Wait({.id = 5, .tokens = 4, .priority = Priority::kInteractive});
  EXPECT_THAT(f.Plan().give_way, IsEmpty());
}

TEST(GiveWayTest, BeyondItsShareATenantTakesOnlyFromItsOwn) {
  SchedulerPolicy policy = Policy();
  policy.max_sequences = 4;
  PlannerFixture f(policy);
  f.free = 10;
  const TenantIndex flood = f.Arrive("flood");
  const TenantIndex other = f.Arrive("other", Priority::kBatch);
  for (RequestId id = 1; id <= 3; ++id) f.Decode(id, 5, 2).tenant = flood;
  f.Decode(4, 5, 2).tenant = other;
  f.running[3].priority = Priority::kBatch;  // less urgent than the flood's own
  f.Wait({.id = 5, .tokens = 4, .tenant = "flood", .priority = Priority::kInteractive});
  EXPECT_THAT(f.Plan().give_way, ElementsAre(3));
  f.Wait({.id = 6, .tokens = 4, .tenant = "third", .priority = Priority::kInteractive});
  f.ledger.Charge(flood, Priority::kInteractive, {.output = 10});
  f.queue.Reprice(flood, Priority::kInteractive);
  EXPECT_THAT(f.Plan().give_way, ElementsAre(4));
}

TEST(GiveWayTest, TheFewestAreFound) {
  PlannerFixture f(Policy());
  for (RequestId id = 1; id <= 20; ++id) f.Decode(id, 5, 2);
  std::vector<const RunningView*> all;
  for (const RunningView& r : f.running) all.push_back(&r);
  for (size_t needed = 0; needed <= 21; ++needed) {
    const auto gone = FewestWhoGiveWay(all, [needed](auto some) { return some.size() >= needed; });
    EXPECT_EQ(gone.size(), needed <= 20 ? needed : 0);
  }
}

}  // namespace
}  // namespace lorad
