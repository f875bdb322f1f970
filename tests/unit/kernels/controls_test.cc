// The conformance suite's own controls: its comparisons must fail when a backend is wrong in the
// ways that matter.
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/kernels/attention_case.h"
#include "tests/unit/kernels/linear_case.h"

namespace lorad::kernels::conformance {
namespace {

TEST(Compare, KnowsTheBounds) {
  Rows want(1, 4);
  want.values = {1, -1, 1, -1};
  EXPECT_TRUE(Within(want, want, kExact));
  Rows got = want;
  got.values[2] = 1.0f + 1e-6f;
  EXPECT_FALSE(Within(got, want, kExact));
  EXPECT_TRUE(Within(got, want, kF32Bound));
  got.values[2] = 1.004f;
  EXPECT_FALSE(Within(got, want, kF32Bound));
  EXPECT_TRUE(Within(got, want, kBf16Bound));
  got.values[2] = 1.05f;
  EXPECT_FALSE(Within(got, want, kBf16Bound));
}

TEST(Compare, NanAndInfinityAreNeverClose) {
  const Rows want(1, 2);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Rows got(1, 2);
    got.values[1] = bad;
    EXPECT_FALSE(Within(got, want, {1e9, 1e9}));
    EXPECT_FALSE(Within(want, got, {1e9, 1e9}));
  }
}

TEST(SameBits, TellsZerosApart) {
  Rows a(1, 2), b(1, 2);
  EXPECT_TRUE(SameBits(a, b));
  b.values[0] = -0.0f;
  EXPECT_FALSE(SameBits(a, b));
}

TEST(Make, RowsAreDistinctAndReproducible) {
  const Rows all = Make(Values::kDense, 3, 5, 8);
  EXPECT_TRUE(SameBits(Make(Values::kDense, 3, 2, 8).At(1), all.At(1)));
  EXPECT_FALSE(SameBits(all.At(0), all.At(1)));
  EXPECT_FALSE(SameBits(Make(Values::kDense, 4, 1, 8).At(0), all.At(0)));
}

class Controls : public testing::TestWithParam<std::string> {
 protected:
  static LinearCase Adapters() {
    LinearCase problem{.rows = 12, .cols = 64, .parts = {48}, .site = 0};
    for (int i = 0; i < 3; ++i) {
      problem.adapters.push_back(
          {{.site = 0, .rank = 8, .d_in = 64, .out_cols = 48, .scale = 0.25f}});
    }
    problem.adapter_of_row = AdaptersInRuns(12, 3, 2);
    return problem;
  }
  // Whether a backend that computes `other` would pass for `problem`.
  bool Passes(const LinearCase& problem, const LinearCase& other) const {
    return bool(
        Within(RunLinear({.backend = GetParam()}, other), RunLinear({}, problem), kBf16Bound));
  }
};

TEST_P(Controls, TheRightAnswerPasses) { EXPECT_TRUE(Passes(Adapters(), Adapters())); }

TEST_P(Controls, AWrongScaleFails) {
  LinearCase other = Adapters();
  other.adapters[1][0].scale *= 1.05f;
  EXPECT_FALSE(Passes(Adapters(), other));
}

TEST_P(Controls, AWrongWeightOfOneRowFails) {
  LinearCase other = Adapters();
  other.weight_of_row.assign(12, 1.0f);
  other.weight_of_row[2] = 0.9f;
  EXPECT_FALSE(Passes(Adapters(), other));
}

TEST_P(Controls, SwappedAdaptersFail) {
  Rig rig({.backend = GetParam()});
  LoadedLinear linear(rig, Adapters());
  linear.Substitute({1, 0, 2});
  EXPECT_FALSE(Within(linear.Run(), RunLinear({}, Adapters()), kBf16Bound));
}

TEST_P(Controls, ARowOfTheNextSegmentFails) {
  LinearCase other = Adapters();
  other.adapter_of_row[1] = 1;
  EXPECT_FALSE(Passes(Adapters(), other));
  other.adapter_of_row[1] = -1;
  EXPECT_FALSE(Passes(Adapters(), other));
}

TEST_P(Controls, AnotherSitesModulesFail) {
  LinearCase other = Adapters();
  other.site = 2;
  EXPECT_FALSE(Passes(Adapters(), other));
}

TEST_P(Controls, AttentionThatIsOffByOneKeyFails) {
  AttentionCase problem{.positions = 100};
  problem.shape.window = 40;
  AttentionCase other = problem;
  other.shape.window = 41;
  const Rows want = RunAttention(problem.Options("reference"), problem, 100);
  EXPECT_FALSE(Within(RunAttention(other.Options(GetParam()), other, 100), want, kBf16Bound));
}

TEST_P(Controls, AttentionWithoutRotationFails) {
  const AttentionCase problem{.positions = 30};
  AttentionCase other = problem;
  other.rotate = false;
  const Rows want = RunAttention(problem.Options("reference"), problem, 30);
  EXPECT_FALSE(Within(RunAttention(other.Options(GetParam()), other, 30), want, kBf16Bound));
}

INSTANTIATE_TEST_SUITE_P(All, Controls, testing::ValuesIn(Variants()), VariantName);

}  // namespace
}  // namespace lorad::kernels::conformance
