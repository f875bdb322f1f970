#include "scheduler/step_rates.h"

#include <gtest/gtest.h>

namespace lorad {
namespace {

constexpr TimePoint kStart{};

TEST(StepRatesTest, AStepThatIsHeldUpCountsAsALittleSlower) {
  StepRates rates;
  for (int i = 0; i < 50; ++i) rates.AddStep(100, 0, 0.1, kStart);
  rates.AddStep(100, 0, 60, kStart);  // counts as four times what was expected
  EXPECT_NEAR(rates.cost().Seconds(100, 0), 0.1 + 0.1 * (0.4 - 0.1), 0.008);
  for (int i = 0; i < 50; ++i) rates.AddStep(100, 0, 0.1, kStart);
  EXPECT_NEAR(rates.cost().Seconds(100, 0), 0.1, 0.001);
}

// The fit needs hundreds of steps to follow; what is foreseen by it needs ten or so.
TEST(StepRatesTest, FollowsAChangeOfPace) {
  StepRates rates;
  const auto run = [&rates](int steps, double times) {
    for (int i = 0; i < steps; ++i) {
      rates.AddStep(i % 2 == 0 ? 100 : 0, 10 + i % 5, times * (i % 2 == 0 ? 0.030 : 0.012), kStart);
    }
  };
  run(600, 1);
  const StepCost before = rates.cost(), tuned = *rates.Fitted();
  run(30, 2);
  EXPECT_NEAR(rates.cost().Seconds(100, 12), 2 * before.Seconds(100, 12),
              0.1 * before.Seconds(100, 12));
  EXPECT_NEAR(rates.Fitted()->Seconds(100, 12), tuned.Seconds(100, 12),
              0.15 * tuned.Seconds(100, 12));
}

TEST(StepRatesTest, IsFittedOnceBothKindsOfStepsWereSeen) {
  StepRates rates;
  for (int i = 0; i < StepRates::kFewestSteps; ++i) rates.AddStep(64, 0, 0.01, kStart);
  EXPECT_FALSE(rates.Fitted().has_value());
  for (int i = 0; i < StepRates::kFewestSteps; ++i) {
    EXPECT_FALSE(rates.Fitted().has_value()) << i;
    rates.AddStep(0, 8, 0.01, kStart);
  }
  EXPECT_TRUE(rates.Fitted().has_value());
}

TEST(StepRatesTest, IsTrustedAfterSomeStepsAndForAWhile) {
  StepRates rates;
  for (int i = 0; i < StepRates::kFewestSteps; ++i) {
    EXPECT_FALSE(rates.Trusted(kStart)) << i;
    rates.AddStep(64, 0, 0.01, kStart);
  }
  EXPECT_TRUE(rates.Trusted(kStart));
  // Steps that only decode say nothing of prompts.
  rates.AddStep(0, 8, 0.01, kStart + StepRates::kFresh);
  EXPECT_TRUE(rates.Trusted(kStart + StepRates::kFresh));
  EXPECT_FALSE(rates.Trusted(kStart + StepRates::kFresh + Duration(1)));
  rates.AddStep(64, 0, 0.01, kStart + 2 * StepRates::kFresh);
  EXPECT_TRUE(rates.Trusted(kStart + 2 * StepRates::kFresh));
}

TEST(StepRatesTest, RecentStepsOfAllKinds) {
  StepRates rates;
  EXPECT_EQ(rates.recent_step(), 0);
  rates.AddStep(100, 0, 0.030, kStart);
  rates.AddStep(0, 10, 0.010, kStart);
  EXPECT_DOUBLE_EQ(rates.recent_step(), 0.020);
}

TEST(StepRatesTest, LoadsAreTrustedForAWhile) {
  StepRates rates;
  EXPECT_FALSE(rates.LoadsTrusted(kStart));
  rates.NoteLoad(kStart);
  EXPECT_TRUE(rates.LoadsTrusted(kStart + StepRates::kFresh));
  EXPECT_FALSE(rates.LoadsTrusted(kStart + StepRates::kFresh + Duration(1)));
}

TEST(StepRatesTest, SharesOfPromptsAndOutputs) {
  StepRates rates;
  EXPECT_EQ(rates.computed_share(), 1);
  EXPECT_EQ(rates.output_share(), 1);
  rates.AddPrompts(100, 80);
  rates.AddPrompts(300, 200);
  EXPECT_DOUBLE_EQ(rates.computed_share(), 120.0 / 400);
  rates.AddOutput(10, 100);
  rates.AddOutput(100, 100);
  EXPECT_DOUBLE_EQ(rates.output_share(), 0.55);
  StepRates cached;
  cached.AddPrompts(100, 100);
  EXPECT_DOUBLE_EQ(cached.computed_share(), 0.01);
}

}  // namespace
}  // namespace lorad
