#include "scheduler/step_budget.h"

#include <gtest/gtest.h>

#include "tests/unit/scheduler/planner_fixture.h"

namespace lorad {
namespace {

using std::chrono::milliseconds;

constexpr auto kStandard = static_cast<size_t>(Priority::kStandard);
constexpr auto kInteractive = static_cast<size_t>(Priority::kInteractive);

SchedulerPolicy Policy(Duration standard) {
  SchedulerPolicy policy{
      .max_step_tokens = 512, .max_sequences = 64, .max_chunk_tokens = 128, .page_tokens = 4};
  policy.objectives[kStandard].inter_token = standard;
  policy.kept_places_share = 0;
  return policy;
}

// 10 ms of base, prompt tokens of 50 us, decoding sequences of 100 us.
constexpr StepCost kCost{.base = 0.010, .prompt_row = 50e-6, .decode_row = 100e-6};

StepBudget BudgetOf(const PlannerFixture& f, std::optional<StepCost> cost = kCost) {
  const PlannerView view{.running = f.running, .recent_step_s = f.recent_step_s, .step_cost = cost};
  return BudgetOf(view, f.policy);
}

TEST(StepBudgetTest, WhatTheObjectiveLeavesIsForPrompts) {
  PlannerFixture f(Policy(milliseconds(20)));
  f.recent_step_s = 0.020;
  for (RequestId id = 1; id <= 10; ++id) f.Decode(id, 5, 2);
  // 0.9 * 20 ms less the base and ten sequences is 7 ms: 140 prompt tokens. A quarter of a chunk is
  // 1.6 ms, which leaves 6.4 ms for 64 sequences.
  EXPECT_EQ(BudgetOf(f), (StepBudget{.prompt_tokens = 140, .sequences = 64}));
  for (RequestId id = 11; id <= 50; ++id) f.Decode(id, 5, 2);
  EXPECT_EQ(BudgetOf(f).prompt_tokens, 60);
}

TEST(StepBudgetTest, FewerAreLetInWhereDecodeAloneIsTooMuch) {
  PlannerFixture f(Policy(milliseconds(15)));
  f.recent_step_s = 0.015;
  for (RequestId id = 1; id <= 40; ++id) f.Decode(id, 5, 2);
  // 13.5 ms: 3.5 ms of rows; 40 sequences take 4 ms and a quarter of a chunk 1.6 ms. Prompts go on
  // with an eighth of a chunk.
  EXPECT_EQ(BudgetOf(f), (StepBudget{.prompt_tokens = 16, .sequences = 18}));
}

TEST(StepBudgetTest, WhatCannotBeMetDoesNotStopTheService) {
  PlannerFixture f(Policy(milliseconds(1)));
  f.recent_step_s = 0.010;
  f.Decode(1, 5, 2);
  EXPECT_EQ(BudgetOf(f), (StepBudget{.prompt_tokens = 16, .sequences = 8}));
}

TEST(StepBudgetTest, OnlyClassesThatRunCountAndTheStrictestOfThem) {
  SchedulerPolicy policy = Policy(milliseconds(100));
  policy.objectives[kInteractive].inter_token = milliseconds(20);
  PlannerFixture f(policy);
  f.Decode(1, 5, 2);
  EXPECT_EQ(BudgetOf(f).prompt_tokens, 512);
  f.Decode(2, 5, 2).priority = Priority::kBatch;  // has none
  EXPECT_EQ(BudgetOf(f).prompt_tokens, 512);
  f.Decode(3, 5, 2).priority = Priority::kInteractive;
  EXPECT_EQ(BudgetOf(f).prompt_tokens, 154);
  f.running.back().paused = true;  // does not wait for tokens
  EXPECT_EQ(BudgetOf(f).prompt_tokens, 512);
}

TEST(StepBudgetTest, IsThePolicysWhereNothingTunesIt) {
  const StepBudget whole{.prompt_tokens = 512, .sequences = 64};
  PlannerFixture f(Policy(milliseconds(15)));
  EXPECT_EQ(BudgetOf(f), whole);  // nobody runs
  f.Decode(1, 5, 2);
  EXPECT_NE(BudgetOf(f), whole);
  EXPECT_EQ(BudgetOf(f, std::nullopt), whole);             // costs are not known yet
  EXPECT_EQ(BudgetOf(f, StepCost{.base = 0.001}), whole);  // rows are free
  SchedulerPolicy off = Policy(milliseconds(15));
  off.tune_steps = false;
  PlannerFixture untuned(off);
  untuned.Decode(1, 5, 2);
  EXPECT_EQ(BudgetOf(untuned), whole);
}

TEST(StepBudgetTest, BoundsPromptsAndAdmissionsButNeverDecode) {
  SchedulerPolicy policy = Policy(milliseconds(15));
  PlannerFixture f(policy);
  f.free = 1000;
  f.step_cost = kCost;
  f.recent_step_s = 0.015;
  for (RequestId id = 1; id <= 30; ++id) f.Decode(id, 5, 2);
  f.Prompt(31, 100);
  f.Wait({.id = 40, .tokens = 10});
  StepPlan plan = f.Plan();
  EXPECT_EQ(plan.budget, (StepBudget{.prompt_tokens = 16, .sequences = 18}));
  ASSERT_EQ(plan.run.size(), 31u);
  EXPECT_EQ(plan.run.back(), (StepPlan::Run{.id = 31, .tokens = 16}));
  EXPECT_TRUE(plan.admit.empty());
  f.running.resize(10);
  plan = f.Plan();
  EXPECT_EQ(plan.admit, std::vector<RequestId>{40});
}

// A flooding tenant fills what the objective leaves; others may have more while steps were short.
TEST(StepBudgetTest, TenantsBelowTheirShareMayHaveMore) {
  for (const bool short_steps : {true, false}) {
    PlannerFixture f(Policy(milliseconds(15)));
    f.free = 1000;
    f.step_cost = kCost;
    f.recent_step_s = short_steps ? 0.0149 : 0.015;
    const TenantIndex flood = f.Arrive("flood");
    f.ledger.Charge(flood, Priority::kStandard, {.output = 1000});
    for (RequestId id = 1; id <= 30; ++id) f.Decode(id, 5, 2).tenant = flood;
    f.Prompt(31, 100).tenant = flood;
    const TenantIndex other = f.Wait({.id = 40, .tokens = 100, .tenant = "other"});
    EXPECT_LT(f.ledger.share(other), 0.5);
    const StepPlan plan = f.Plan();
    EXPECT_EQ(plan.budget.prompt_tokens, 16);
    EXPECT_EQ(plan.budget.burst_tokens, short_steps ? 496 : 0);
    // Its place, too, is one that the flood may not have.
    ASSERT_EQ(plan.admit, std::vector<RequestId>{40});
    int flood_tokens = 0, other_tokens = 0;
    for (const StepPlan::Run& run : plan.run) {
      if (run.id == 31) flood_tokens = run.tokens;
      if (run.id == 40) other_tokens = run.tokens;
    }
    EXPECT_EQ(other_tokens, short_steps ? 100 : 16);
    EXPECT_EQ(flood_tokens, 0);
  }
}

// The objective of an urgent class is not a reason to keep its own requests out because of what
// runs of the others.
TEST(StepBudgetTest, LessUrgentOnesDoNotTakeThePlacesOfUrgentOnes) {
  SchedulerPolicy policy = Policy(milliseconds(0));
  policy.objectives[kInteractive].inter_token = milliseconds(15);
  PlannerFixture f(policy);
  f.free = 1000;
  f.step_cost = kCost;
  for (RequestId id = 1; id <= 30; ++id) f.Decode(id, 5, 2).priority = Priority::kBatch;
  f.Decode(31, 5, 2).priority = Priority::kInteractive;
  f.Wait({.id = 40, .tokens = 4, .priority = Priority::kBatch});
  f.Wait({.id = 41, .tokens = 4, .priority = Priority::kInteractive});
  EXPECT_EQ(f.Plan().admit, std::vector<RequestId>{41});
}

}  // namespace
}  // namespace lorad
