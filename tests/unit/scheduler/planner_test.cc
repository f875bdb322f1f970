#include "scheduler/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/scheduler/planner_fixture.h"

namespace lorad {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Load = StepPlan::Load;
using Turn = StepPlan::Run;

constexpr SchedulerPolicy kPolicy{.max_step_tokens = 64,
                                  .max_sequences = 4,
                                  .max_chunk_tokens = 32,
                                  .max_adapter_loads = 1,
                                  .page_tokens = 16,
                                  .reserve_pages = 0};

class PlannerTest : public testing::Test {
 protected:
  PlannerFixture f_{kPolicy};
};

TEST_F(PlannerTest, NothingToDoIsAnEmptyPlan) {
  f_.free = 10;
  EXPECT_EQ(f_.Plan(), StepPlan{});
}

TEST_F(PlannerTest, DecodeComesBeforePrefillAndPrefillIsChunked) {
  f_.free = 10;
  f_.Prompt(1, 100);
  f_.Decode(2, 10, 1);
  EXPECT_THAT(f_.Plan().run, ElementsAre(Turn{2, 1, 0}, Turn{1, 32, 0}));
}

TEST_F(PlannerTest, StepBudgetIsShared) {
  f_.free = 10;
  for (RequestId id = 1; id <= 3; ++id) f_.Prompt(id, 200);
  EXPECT_THAT(f_.Plan().run, ElementsAre(Turn{1, 32, 0}, Turn{2, 32, 0}));
}

TEST_F(PlannerTest, DecodeTakesAPageAtAPageBoundary) {
  f_.free = 5;
  f_.Decode(1, 17, 1);
  f_.Decode(2, 16, 1);
  EXPECT_THAT(f_.Plan().run, ElementsAre(Turn{1, 1, 1}, Turn{2, 1, 0}));
}

TEST_F(PlannerTest, EvictablePagesCountAsAvailable) {
  f_.evictable = 1;
  f_.Decode(1, 17, 1);
  const StepPlan plan = f_.Plan();
  EXPECT_THAT(plan.preempt, IsEmpty());
  EXPECT_THAT(plan.run, ElementsAre(Turn{1, 1, 1}));
}

TEST_F(PlannerTest, YoungestIsPreemptedAndNothingIsAdmitted) {
  f_.Decode(1, 17, 1);
  f_.Decode(2, 17, 1);
  f_.Decode(3, 20, 2);
  f_.Wait({.id = 4});
  const StepPlan plan = f_.Plan();
  EXPECT_THAT(plan.preempt, ElementsAre(3));
  EXPECT_THAT(plan.run, ElementsAre(Turn{1, 1, 1}, Turn{2, 1, 1}));
  EXPECT_THAT(plan.admit, IsEmpty());
}

TEST_F(PlannerTest, AloneAndOutOfPagesItPreemptsItself) {
  f_.Decode(1, 17, 1);
  const StepPlan plan = f_.Plan();
  EXPECT_THAT(plan.preempt, ElementsAre(1));
  EXPECT_THAT(plan.run, IsEmpty());
}

TEST_F(PlannerTest, AdmitsInOrderWithPagesForTheWholePrompt) {
  f_.free = 10;
  f_.Wait({.id = 1, .tokens = 40});
  f_.Wait({.id = 2, .tokens = 20});
  f_.Wait({.id = 3, .tokens = 5});
  const StepPlan plan = f_.Plan();
  EXPECT_THAT(plan.admit, ElementsAre(1, 2, 3));
  EXPECT_THAT(plan.run, ElementsAre(Turn{1, 32, 3}, Turn{2, 20, 2}, Turn{3, 5, 1}));
}

TEST_F(PlannerTest, SequenceSlotsBoundAdmission) {
  f_.free = 10;
  for (RequestId id = 1; id <= 6; ++id) f_.Wait({.id = id, .tokens = 2});
  EXPECT_THAT(f_.Plan().admit, ElementsAre(1, 2, 3, 4));
}

TEST_F(PlannerTest, HeadThatDoesNotFitStopsThoseBehind) {
  f_.free = 3;
  f_.Decode(1, 5, 1);
  f_.Wait({.id = 2, .tokens = 100});
  f_.Wait({.id = 3, .tokens = 5});
  EXPECT_THAT(f_.Plan().admit, IsEmpty());
}

TEST(PlannerReserveTest, AppliesOnlyWhileSomethingRuns) {
  SchedulerPolicy policy = kPolicy;
  policy.reserve_pages = 2;
  PlannerFixture busy(policy), alone(policy);
  for (PlannerFixture* f : {&busy, &alone}) {
    f->free = 3;
    f->Wait({.id = 2, .tokens = 32});
  }
  busy.Decode(1, 5, 1);
  EXPECT_THAT(busy.Plan().admit, IsEmpty());
  EXPECT_THAT(alone.Plan().admit, ElementsAre(2));
}

TEST_F(PlannerTest, ColdAdapterIsLoadedOnceAndDelaysNobody) {
  f_.free = 10;
  for (RequestId id : {1, 2}) {
    f_.Wait(
        {.id = id, .tokens = 5, .adapter = 7, .adapter_pages = 2, .state = AdapterState::kStored});
  }
  f_.Wait({.id = 3, .tokens = 5});
  const StepPlan plan = f_.Plan();
  EXPECT_THAT(plan.load, ElementsAre(Load{7, 1}));
  EXPECT_THAT(plan.admit, ElementsAre(3));
}

TEST_F(PlannerTest, OneLoadServesTwoTenants) {
  f_.free = 10;
  for (RequestId id : {1, 2}) {
    f_.Wait({.id = id,
             .tenant = id == 1 ? "acme" : "other",
             .adapter = 7,
             .adapter_pages = 2,
             .state = AdapterState::kStored});
  }
  EXPECT_THAT(f_.Plan().load, ElementsAre(Load{7, 1}));
}

TEST_F(PlannerTest, LoadsInFlightAreBounded) {
  f_.free = 10;
  for (RequestId id : {1, 2}) {
    f_.Wait({.id = id, .adapter = 6 + id, .adapter_pages = 2, .state = AdapterState::kStored});
  }
  EXPECT_THAT(f_.Plan().load, ElementsAre(Load{7, 1}));
  f_.loads = 1;
  EXPECT_THAT(f_.Plan().load, IsEmpty());
}

TEST_F(PlannerTest, LoadingAdapterIsPassedOver) {
  f_.free = 10;
  f_.loads = 1;
  f_.Wait({.id = 1, .adapter = 7, .adapter_pages = 2, .state = AdapterState::kLoading});
  f_.Wait({.id = 2});
  const StepPlan plan = f_.Plan();
  EXPECT_THAT(plan.admit, ElementsAre(2));
  EXPECT_THAT(plan.load, IsEmpty());
}

TEST_F(PlannerTest, IdleAdapterOfAnAdmittedRequestIsNotEvictableAnyMore) {
  // Two pages are evictable, but they are the adapter's own: nothing is left for the prompt.
  f_.evictable = 2;
  f_.Wait(
      {.id = 1, .tokens = 5, .adapter = 7, .adapter_pages = 2, .state = AdapterState::kResident});
  EXPECT_THAT(f_.Plan().admit, IsEmpty());
  f_.free = 1;
  EXPECT_THAT(f_.Plan().admit, ElementsAre(1));
}

TEST_F(PlannerTest, TwoRequestsPinTheirIdleAdapterOnce) {
  f_.evictable = f_.free = 2;
  for (RequestId id : {1, 2}) {
    f_.Wait({.id = id,
             .tokens = 5,
             .adapter = 7,
             .adapter_pages = 2,
             .state = AdapterState::kResident});
  }
  EXPECT_THAT(f_.Plan().admit, ElementsAre(1, 2));
}

TEST_F(PlannerTest, PausedSequencesKeepTheirPagesAndGetNothing) {
  f_.free = 10;
  f_.Decode(1, 10, 1).paused = true;
  f_.Decode(2, 10, 1);
  f_.Prompt(3, 20).paused = true;
  EXPECT_THAT(f_.Plan().run, ElementsAre(Turn{2, 1, 0}));
}

TEST_F(PlannerTest, PreemptionCountsOnlyPagesThatNobodyElseHolds) {
  f_.Decode(1, 17, 1);
  f_.Decode(2, 40, 3);
  f_.Decode(3, 40, 3).releasable_pages = 0;  // all shared with 2
  const StepPlan plan = f_.Plan();
  EXPECT_THAT(plan.preempt, ElementsAre(3, 2));
  EXPECT_THAT(plan.run, ElementsAre(Turn{1, 1, 1}));
}

TEST_F(PlannerTest, CachedBeginningIsNeitherComputedNorPaidForAgain) {
  f_.free = 1;
  f_.Wait({.id = 1, .tokens = 40});
  f_.prefixes[1] = {.tokens = 35, .pages = 2};  // two pages shared, three tokens copied
  const StepPlan plan = f_.Plan();
  EXPECT_THAT(plan.admit, ElementsAre(1));
  EXPECT_THAT(plan.run, ElementsAre(Turn{1, 5, 1}));
}

TEST_F(PlannerTest, CachedPagesThatWereIdleAreNotEvictableAnyMore) {
  f_.Wait({.id = 1, .tokens = 40});
  f_.prefixes[1] = {.tokens = 35, .pages = 2, .idle_pages = 3};  // and the one that is copied
  f_.Decode(9, 5, 1);
  f_.evictable = 3;
  EXPECT_THAT(f_.Plan().admit, IsEmpty());
  f_.free = 1;
  EXPECT_THAT(f_.Plan().admit, ElementsAre(1));
}

TEST_F(PlannerTest, WhatCanNeverFitIsRefusedAndStopsNobody) {
  f_.free = 3;
  f_.evictable = 2;
  f_.Wait({.id = 1, .tokens = 100});
  f_.Wait({.id = 2, .adapter = 7, .adapter_pages = 9, .state = AdapterState::kStored});
  f_.Wait({.id = 3, .tokens = 5});
  const StepPlan plan = f_.Plan();
  EXPECT_THAT(plan.refuse, ElementsAre(1, 2));
  EXPECT_THAT(plan.admit, ElementsAre(3));
}

TEST_F(PlannerTest, NothingIsRefusedWhilePagesMayComeBack) {
  f_.free = 3;
  f_.Wait({.id = 2, .tokens = 100});
  f_.loads = 1;
  EXPECT_THAT(f_.Plan().refuse, IsEmpty());
  f_.loads = 0;
  f_.Decode(1, 5, 1);
  EXPECT_THAT(f_.Plan().refuse, IsEmpty());
}

TEST_F(PlannerTest, NothingIsRefusedBehindOneThatIsAdmitted) {
  f_.free = 3;
  f_.Wait({.id = 1, .tokens = 5});
  f_.Wait({.id = 2, .tokens = 100});
  EXPECT_THAT(f_.Plan().refuse, IsEmpty());
}

TEST_F(PlannerTest, MoreUrgentClassGoesFirstAndLeavesAShare) {
  f_.free = 50;
  f_.Wait({.id = 1, .tokens = 100, .priority = Priority::kBatch});
  for (RequestId id = 2; id <= 6; ++id) {
    f_.Wait({.id = id, .tokens = 25, .priority = Priority::kInteractive});
  }
  // Of 64 tokens a tenth is kept, and of 4 places one.
  const StepPlan plan = f_.Plan();
  EXPECT_THAT(plan.run, ElementsAre(Turn{2, 25, 2}, Turn{3, 25, 2}, Turn{4, 7, 2}, Turn{1, 7, 7}));
}

TEST_F(PlannerTest, WhatTheOthersDoNotTakeGoesBackToTheMostUrgent) {
  f_.free = 50;
  f_.Wait({.id = 1, .tokens = 3, .priority = Priority::kBatch});
  for (RequestId id = 2; id <= 3; ++id) {
    f_.Wait({.id = id, .tokens = 30, .priority = Priority::kInteractive});
  }
  f_.Prompt(9, 30).priority = Priority::kInteractive;
  EXPECT_THAT(f_.Plan().run,
              ElementsAre(Turn{2, 30, 2}, Turn{3, 27, 2}, Turn{1, 3, 1}, Turn{9, 4, 0}));
}

TEST_F(PlannerTest, ClassThatWaitedCountsAsMoreUrgent) {
  f_.free = 50;
  f_.Wait({.id = 1, .tokens = 64, .priority = Priority::kStandard});
  f_.now += kPolicy.ageing - Duration(1);
  f_.Wait({.id = 2, .tokens = 64, .priority = Priority::kInteractive});
  EXPECT_THAT(f_.Plan().admit, ElementsAre(2, 1));
  f_.now += Duration(1);
  EXPECT_THAT(f_.Plan().admit, ElementsAre(1, 2));
}

// Whether it runs already or waits, a prompt gets its tokens in turn.
TEST_F(PlannerTest, RunningPromptsTakeTurnsWithWaitingOnes) {
  f_.free = 50;
  RunningView& running = f_.Prompt(1, 200);
  running.tenant = f_.Arrive("flood");
  f_.Arrive("light");  // active, so that it is not lifted below
  f_.ledger.Charge(running.tenant, Priority::kStandard, {.input = 1000});
  f_.Wait({.id = 2, .tokens = 60, .tenant = "light"});
  EXPECT_THAT(f_.Plan().run, ElementsAre(Turn{2, 32, 4}, Turn{1, 32, 0}));
}

}  // namespace
}  // namespace lorad
