#include "scheduler/step_rates.h"

#include <gtest/gtest.h>

#include <random>

namespace lorad {
namespace {

constexpr TimePoint kStart{};

TEST(StepRatesTest, LearnsABaseAndARow) {
  StepRates rates;
  const StepCost truth{.base = 0.010, .row = 0.0002};
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) {
    const int decode = static_cast<int>(random() % 40);
    const int prefill = i % 3 == 0 ? 100 + static_cast<int>(random() % 100) : 0;
    rates.AddStep(prefill, decode, truth.Seconds(prefill + decode), kStart);
  }
  EXPECT_NEAR(rates.cost().base, truth.base, 1e-12);
  EXPECT_NEAR(rates.cost().row, truth.row, 1e-12);
}

TEST(StepRatesTest, FollowsAChange) {
  StepRates rates;
  const auto run = [&rates](double times) {
    for (int i = 0; i < 60; ++i) {
      rates.AddStep(100, 0, times * 0.030, kStart);
      rates.AddStep(0, 10, times * 0.012, kStart);
    }
  };
  run(1);
  EXPECT_NEAR(rates.cost().Seconds(100), 0.030, 1e-9);
  run(3);
  EXPECT_NEAR(rates.cost().Seconds(100), 0.090, 0.0005);
  EXPECT_NEAR(rates.cost().Seconds(10), 0.036, 0.0002);
  run(0.5);
  EXPECT_NEAR(rates.cost().Seconds(100), 0.015, 0.0005);
}

TEST(StepRatesTest, UntilBothKindsWereSeenAllOfAStepIsItsRows) {
  StepRates rates;
  EXPECT_EQ(rates.cost(), StepCost());
  rates.AddStep(0, 4, 0.008, kStart);
  EXPECT_EQ(rates.cost(), (StepCost{.base = 0, .row = 0.002}));
  StepRates prompts;
  prompts.AddStep(50, 0, 0.1, kStart);
  EXPECT_EQ(prompts.cost(), (StepCost{.base = 0, .row = 0.002}));
}

TEST(StepRatesTest, NeitherPartIsEverNegative) {
  // Long steps that cost no more than short ones: all is base.
  StepRates flat;
  flat.AddStep(100, 0, 0.009, kStart);
  flat.AddStep(0, 10, 0.010, kStart);
  EXPECT_EQ(flat.cost(), (StepCost{.base = 0.009, .row = 0}));
  // A step ten times as long that costs more than ten times as much: all is rows.
  StepRates steep;
  steep.AddStep(100, 0, 0.200, kStart);
  steep.AddStep(0, 10, 0.010, kStart);
  EXPECT_EQ(steep.cost(), (StepCost{.base = 0, .row = 0.002}));
  // Prompts shorter than the batch that decodes draw no line.
  StepRates crossed;
  crossed.AddStep(10, 0, 0.010, kStart);
  crossed.AddStep(0, 20, 0.030, kStart);
  EXPECT_EQ(crossed.cost(), (StepCost{.base = 0, .row = 0.001}));
}

TEST(StepRatesTest, AStepThatIsHeldUpCountsAsALittleSlower) {
  StepRates rates;
  for (int i = 0; i < 50; ++i) rates.AddStep(100, 0, 0.1, kStart);
  rates.AddStep(100, 0, 60, kStart);
  EXPECT_NEAR(rates.cost().Seconds(100), 0.1 + 0.1 * (0.4 - 0.1), 1e-9);
  for (int i = 0; i < 50; ++i) rates.AddStep(100, 0, 0.1, kStart);
  EXPECT_NEAR(rates.cost().Seconds(100), 0.1, 0.001);
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
