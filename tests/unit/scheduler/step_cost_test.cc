#include "scheduler/step_cost.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace lorad {
namespace {

// Steps as a server has them: a batch that grows and shrinks, and prompts in some.
template <typename Cost>
void RunSteps(StepCostFit* fit, int steps, const Cost& seconds, double noise = 0) {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  for (int i = 0; i < steps; ++i) {
    const int decode = 20 + static_cast<int>(10 * std::sin(i * 0.3));
    const int prompt = i % 3 == 0 ? static_cast<int>(random() % 200) : 0;
    fit->Add(prompt, decode, seconds(prompt, decode) * (1 + noise * normal(random)));
  }
}

TEST(StepCostTest, TellsTheThreePartsApart) {
  StepCostFit fit;
  const StepCost truth{.base = 0.010, .prompt_row = 0.0002, .decode_row = 0.0005};
  RunSteps(&fit, 200, [&truth](int p, int d) { return truth.Seconds(p, d); });
  EXPECT_NEAR(fit.cost().base, truth.base, 0.02 * truth.base);
  EXPECT_NEAR(fit.cost().prompt_row, truth.prompt_row, 0.02 * truth.prompt_row);
  EXPECT_NEAR(fit.cost().decode_row, truth.decode_row, 0.05 * truth.decode_row);
}

TEST(StepCostTest, NoiseMovesItLittle) {
  StepCostFit fit;
  const StepCost truth{.base = 0.010, .prompt_row = 0.0002, .decode_row = 0.0005};
  RunSteps(
      &fit, 1000, [&truth](int p, int d) { return truth.Seconds(p, d); }, 0.05);
  EXPECT_NEAR(fit.cost().prompt_row, truth.prompt_row, 0.15 * truth.prompt_row);
  for (const auto& [p, d] : {std::pair(0, 10), {0, 30}, {200, 20}}) {
    EXPECT_NEAR(fit.cost().Seconds(p, d), truth.Seconds(p, d), 0.06 * truth.Seconds(p, d));
  }
}

TEST(StepCostTest, FollowsAChange) {
  StepCostFit fit;
  const StepCost truth{.base = 0.010, .prompt_row = 0.0002, .decode_row = 0.0005};
  for (const double times : {1.0, 3.0, 0.5}) {
    RunSteps(&fit, 1500, [&](int p, int d) { return times * truth.Seconds(p, d); });
    EXPECT_NEAR(fit.cost().Seconds(100, 20), times * truth.Seconds(100, 20),
                0.06 * times * truth.Seconds(100, 20));
  }
}

// What steps do not tell apart is taken for the rows'.
TEST(StepCostTest, UntilStepsDifferAllOfAStepIsItsRows) {
  StepCostFit fit;
  EXPECT_EQ(fit.cost(), StepCost());
  for (int i = 0; i < 50; ++i) {
    fit.Add(0, 4, 0.008);
    EXPECT_NEAR(fit.cost().decode_row, 0.002, 1e-12);
    EXPECT_NEAR(fit.cost().prompt_row, 0.002, 1e-12);
    EXPECT_NEAR(fit.cost().base, 0, 1e-12);
  }
}

TEST(StepCostTest, NoPartIsEverNegative) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    StepCostFit fit;
    double mean = 0, p = 0, d = 0;
    const int steps = 1 + static_cast<int>(random() % 20);  // all of one weight
    for (int i = 0; i < steps; ++i) {
      const int prompt = random() % 2 == 0 ? 0 : static_cast<int>(random() % 300);
      const int decode = 1 + static_cast<int>(random() % 50);
      const double seconds = 1e-3 * static_cast<double>(1 + random() % 100);
      fit.Add(prompt, decode, seconds);
      mean += seconds / steps;
      p += static_cast<double>(prompt) / steps;
      d += static_cast<double>(decode) / steps;
    }
    const StepCost cost = fit.cost();
    ASSERT_GE(cost.base, 0);
    ASSERT_GE(cost.prompt_row, 0);
    ASSERT_GE(cost.decode_row, 0);
    // The mean step costs what it did.
    ASSERT_NEAR(cost.Seconds(p, d), mean, 1e-9);
  }
}

}  // namespace
}  // namespace lorad
