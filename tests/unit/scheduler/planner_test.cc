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
                                  .reserve_pages = 0,
                                  .admission = AdmissionMode::kPromptOnly};

class PlannerTest : public testing::Test {
 protected:
  PlannerFixture f_{kPolicy};
};

TEST_F(PlannerTest, NothingToDoIsAnEmptyPlan) {
  f_.free = 10;
  EXPECT_EQ(f_.Plan(), (StepPlan{.budget = {.prompt_tokens = f_.policy.max_step_tokens,
                                            .sequences = f_.policy.max_sequences},
                                 .spare_pages = 10}));
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

TEST_F(PlannerTest, OneIsPreemptedAndNothingIsAdmitted) {
  f_.Decode(1, 17, 1);
  f_.Decode(2, 17, 1);
  f_.Decode(3, 17, 2);
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

// One place of sixteen is left, and the tenant that runs fifteen is first in order.
TEST(PlannerPlacesTest, LastPlacesAreForTenantsBelowTheirShare) {
  SchedulerPolicy policy = kPolicy;
  policy.max_sequences = 16;
  for (const bool other_waits : {true, false}) {
    for (const bool kept : {true, false}) {
      policy.kept_places_share = kept ? 1.0 / 16 : 0;
      PlannerFixture f(policy);
      f.free = 100;
      for (RequestId id = 1; id <= 15; ++id) f.Decode(id, 5, 1);
      f.Wait({.id = 16});
      f.Wait({.id = 17});
      if (other_waits) f.Wait({.id = 18, .tenant = "other"});
      EXPECT_THAT(f.Plan().admit, ElementsAre(kept && other_waits ? 18 : 16));
    }
  }
}

TEST(PlannerPlacesTest, TenantsThatAllWantMoreFillEveryPlace) {
  SchedulerPolicy policy = kPolicy;
  policy.max_sequences = 16;
  PlannerFixture f(policy);
  f.free = 100;
  const TenantIndex other = f.Wait({.id = 20, .tenant = "other"});
  for (RequestId id = 1; id <= 15; ++id) f.Decode(id, 5, 1).tenant = id <= 8 ? 0 : other;
  EXPECT_THAT(f.Plan().admit, ElementsAre(20));
}

TEST(PlannerFcfsTest, HeadThatDoesNotFitStopsThoseBehind) {
  PlannerFixture f(PlainFcfs(kPolicy));
  f.free = 3;
  f.Decode(1, 5, 1);
  f.Wait({.id = 2, .tokens = 100});
  f.Wait({.id = 3, .tokens = 5});
  EXPECT_THAT(f.Plan().admit, IsEmpty());
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
  f_.Decode(2, 17, 3);
  f_.Decode(3, 17, 3).releasable_pages = 0;  // all shared with 2
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

// Head 3 needs four pages, which are there once 1 has ended, five steps from now.
class BackfillTest : public testing::Test {
 protected:
  BackfillTest() {
    f_.free = 3;
    f_.Decode(1, 20, 2).left_tokens = 6;
    f_.Decode(2, 20, 2).left_tokens = 100;
    f_.running[1].known_tokens = f_.running[1].computed_tokens;  // a prompt, nearly computed
    f_.running[1].computed_tokens -= 2;
    f_.running[1].held_pages = f_.running[1].releasable_pages = 9;
    f_.Wait({.id = 3, .tokens = 62, .left = 2});
  }
  PlannerFixture f_{kPolicy};
};

TEST_F(BackfillTest, WhoEndsBeforeTheReservationGoesFirst) {
  f_.Wait({.id = 4, .tokens = 16, .left = 3});
  const StepPlan plan = f_.Plan();
  EXPECT_EQ(plan.reserved_for, 3u);
  EXPECT_THAT(plan.admit, ElementsAre(4));
  EXPECT_THAT(plan.overtaken, ElementsAre(StepPlan::Overtaken{3, 1}));
}

TEST_F(BackfillTest, WhoWouldDelayTheReservationWaits) {
  f_.Wait({.id = 4, .tokens = 30, .left = 40});
  EXPECT_THAT(f_.Plan().admit, IsEmpty());
}

TEST_F(BackfillTest, NobodyIsPassedByForEver) {
  f_.queue.Overtake(3, kPolicy.max_backfills, f_.now);
  f_.Wait({.id = 4, .tokens = 16, .left = 3});
  EXPECT_THAT(f_.Plan().admit, IsEmpty());
}

class NoEvictTest : public testing::Test {
 protected:
  static SchedulerPolicy Policy(AdmissionMode mode) {
    SchedulerPolicy policy = kPolicy;
    policy.admission = mode;
    return policy;
  }
};

TEST_F(NoEvictTest, LetsInOnlyWhoCanComeToItsEnd) {
  for (const AdmissionMode mode : {AdmissionMode::kPromptOnly, AdmissionMode::kNoEvict}) {
    PlannerFixture f(Policy(mode));
    f.free = 5;
    f.Decode(1, 16, 1).left_tokens = 33;  // needs two pages more, at the end
    f.Wait({.id = 2, .tokens = 16, .left = 33});
    f.Wait({.id = 3, .tokens = 16, .left = 33});
    const StepPlan plan = f.Plan();
    if (mode == AdmissionMode::kNoEvict) {
      EXPECT_THAT(plan.admit, ElementsAre(2));
    } else {
      EXPECT_THAT(plan.admit, ElementsAre(2, 3));
    }
  }
}

TEST_F(NoEvictTest, CountsWhatEndsBefore) {
  PlannerFixture f(Policy(AdmissionMode::kNoEvict));
  f.free = 3;
  f.Decode(1, 16, 1).left_tokens = 2;  // needs one page more, and gives two back
  f.Wait({.id = 2, .tokens = 16, .left = 49});
  EXPECT_THAT(f.Plan().admit, ElementsAre(2)) << "four pages, the last ones later";
}

// Pages go to whom can come to its end with them; the others wait, and nobody is preempted.
TEST_F(NoEvictTest, HoldsWhoWouldTakeTheLastPages) {
  PlannerFixture f(Policy(AdmissionMode::kNoEvict));
  f.free = 1;
  f.Decode(1, 17, 1).left_tokens = 17;
  f.Decode(2, 17, 1).left_tokens = 2;
  f.running[0].releasable_pages = f.running[1].releasable_pages = 1;
  const StepPlan plan = f.Plan();
  EXPECT_THAT(plan.preempt, IsEmpty());
  EXPECT_THAT(plan.run, ElementsAre(Turn{2, 1, 1}));
}

TEST_F(PlannerTest, WhoWasOvertakenTooOftenHasRoomReserved) {
  f_.free = 3;
  f_.Decode(1, 40, 3).left_tokens = 9;
  f_.Wait({.id = 2, .adapter = 7, .adapter_pages = 4, .state = AdapterState::kStored});
  f_.Wait({.id = 3, .tokens = 16, .left = 60});
  StepPlan plan = f_.Plan();
  EXPECT_THAT(plan.admit, ElementsAre(3));
  EXPECT_EQ(plan.reserved_for, 0u);
  f_.queue.Overtake(2, kPolicy.max_overtakes, f_.now);
  plan = f_.Plan();
  EXPECT_THAT(plan.admit, IsEmpty());
  EXPECT_EQ(plan.reserved_for, 2u);
  EXPECT_EQ(plan.pinned, 1);
}

TEST_F(PlannerTest, ALongTimePinsAsWell) {
  f_.free = 3;
  f_.Decode(1, 5, 1);
  f_.Wait({.id = 2, .adapter = 7, .adapter_pages = 4, .state = AdapterState::kStored});
  f_.queue.Overtake(2, 1, f_.now);
  EXPECT_EQ(f_.Plan().pinned, 0);
  f_.now += kPolicy.max_overtaken_time;
  EXPECT_EQ(f_.Plan().pinned, 1);
}

TEST(PlannerFcfsTest, NobodyIsPinned) {
  PlannerFixture f(PlainFcfs(kPolicy));
  f.free = 3;
  f.Decode(1, 5, 1);
  f.Wait({.id = 2, .adapter = 7, .adapter_pages = 4, .state = AdapterState::kStored});
  f.queue.Overtake(2, 1000, f.now);
  f.now += std::chrono::hours(1);
  EXPECT_EQ(f.Plan().pinned, 0);
}

TEST(PlannerAdaptersTest, BytesOfAStepAreBoundAndTheLeastBusyIsDrained) {
  SchedulerPolicy policy = kPolicy;
  policy.max_adapter_bytes = 5;
  PlannerFixture f(policy);
  f.free = 20;
  const auto wait = [&f](RequestId id, AdapterVersionId adapter, int left) {
    f.Wait({.id = id,
            .left = left,
            .adapter = adapter,
            .adapter_pages = 3,
            .state = AdapterState::kResident});
  };
  RunningView& busy = f.Decode(1, 5, 1);
  busy.adapter = 6;
  busy.adapter_bytes = 3;
  busy.left_tokens = 10;
  wait(2, 7, 5);   // would make six
  wait(3, 6, 12);  // uses what is there
  EXPECT_THAT(f.Plan().admit, ElementsAre(3));
  f.queue.Overtake(2, policy.max_overtakes, f.now);
  wait(4, 6, 13);  // more than 1.2 times what 6 has left
  const StepPlan plan = f.Plan();
  EXPECT_EQ(plan.draining, 6u);
  EXPECT_THAT(plan.admit, ElementsAre(3));
}

TEST_F(PlannerTest, WhatTheNextRequestsUseIsKept) {
  f_.evictable = 4;
  for (RequestId id = 1; id <= 4; ++id) f_.Decode(id, 5, 1);  // no place is free
  f_.Wait({.id = 5, .adapter = 7, .adapter_pages = 4, .state = AdapterState::kResident});
  f_.Wait({.id = 6, .adapter = 8, .adapter_pages = 2, .state = AdapterState::kStored});
  const StepPlan plan = f_.Plan();
  EXPECT_THAT(plan.keep, ElementsAre(7));
  EXPECT_THAT(plan.load, IsEmpty());
  f_.queue.Overtake(6, kPolicy.max_overtakes, f_.now);
  EXPECT_THAT(f_.Plan().load, ElementsAre(Load{8, 6})) << "who has waited long need not care";
}

TEST_F(PlannerTest, OfEqualsTheYoungestGivesWay) {
  f_.Decode(1, 17, 1);
  f_.Decode(2, 33, 2);  // has computed more
  const StepPlan plan = f_.Plan();
  EXPECT_THAT(plan.preempt, ElementsAre(2));
  EXPECT_THAT(plan.run, ElementsAre(Turn{1, 1, 1}));
}

TEST_F(PlannerTest, VictimsAreOfTheLatestClassThenOfTheTenantThatHadMost) {
  for (RequestId id = 1; id <= 4; ++id) f_.Decode(id, 17, 1);
  const TenantIndex rich = f_.Arrive("rich");
  f_.ledger.Charge(rich, Priority::kStandard, {.input = 100});
  f_.running[1].tenant = rich;
  f_.running[2].priority = Priority::kBatch;
  f_.running[3].priority = Priority::kBatch;
  f_.running[3].preemptions = kPolicy.max_preemptions;
  const StepPlan plan = f_.Plan();
  EXPECT_THAT(plan.preempt, ElementsAre(3, 2));
  EXPECT_THAT(plan.run, ElementsAre(Turn{1, 1, 1}, Turn{4, 1, 1}));
}

}  // namespace
}  // namespace lorad
