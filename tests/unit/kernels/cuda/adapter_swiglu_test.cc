// The fused activation has the bits of expansion and activation one after the other, whatever rows
// and ranks are in a step, and so does each row those that it has alone.
#include <algorithm>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/kernels/cuda/adapter_rig.h"

namespace lorad::kernels::cuda {
namespace {

AdapterProblem FeedForward(int inputs, int ffn) {
  const auto gate = [&](int rank) {
    return ModuleShape{.site = 1, .out_begin = 0, .rank = rank, .out_cols = ffn, .scale = 0.8f};
  };
  const auto up = [&](int rank) {
    return ModuleShape{
        .site = 1, .out_begin = uint32_t(ffn), .rank = rank, .out_cols = ffn, .scale = 1.5f};
  };
  const ModuleShape elsewhere{.site = 0, .rank = 8, .out_cols = 8};
  return {.inputs = inputs,
          .outputs = 2 * ffn,
          .adapters = {{gate(16), up(16)},
                       {up(24)},
                       {gate(7)},
                       {gate(150), up(256)},
                       {elsewhere},
                       {up(64), gate(1)},
                       {gate(128), up(97)}},
          .numbers = Numbers::kNormal};
}

void ExpectFusedEqual(const AdapterRig& rig, const std::vector<Rows>& runs) {
  const auto want = rig.SwiGlu(1, runs, /*fused=*/false);
  const auto got = rig.SwiGlu(1, runs, /*fused=*/true);
  ASSERT_FALSE(want.bits.empty());
  ASSERT_EQ(got.bits.size(), want.bits.size());
  for (size_t i = 0; i < want.bits.size(); ++i) {
    ASSERT_EQ(got.bits[i], want.bits[i])
        << "row " << i / size_t(want.stride) << " column " << i % size_t(want.stride) << ": "
        << got.y[i] << ", not " << want.y[i];
  }
}

TEST(AdapterSwiGluTest, HasTheBitsOfExpandAndSwiGlu) {
  for (const int ffn : {8, 40, 128, 264}) {
    SCOPED_TRACE(ffn);
    const AdapterRig rig(FeedForward(ffn == 40 ? 2100 : 150, ffn));
    ExpectFusedEqual(rig, {{.adapter = 0, .rows = 3, .weight = 0.7f},
                           {.adapter = -1, .rows = 2, .first_input = 3},
                           {.adapter = 1, .rows = 16, .first_input = 5},
                           {.adapter = 2, .rows = 1, .first_input = 21},
                           {.adapter = 4, .rows = 5, .first_input = 22},
                           {.adapter = 3, .rows = 20, .first_input = 27},
                           {.adapter = 5, .rows = 9, .first_input = 47, .weight = -2.0f}});
    ExpectFusedEqual(rig, {{.adapter = -1, .rows = 100},
                           {.adapter = 0, .rows = 70, .first_input = 100},
                           {.adapter = 6, .rows = 40, .first_input = 170},
                           {.adapter = 1, .rows = 34, .first_input = 210},
                           {.adapter = -1, .rows = 1, .first_input = 244}});
  }
}

TEST(AdapterSwiGluTest, EveryMix) {
  std::mt19937_64 random(17);
  const auto draw = [&](int low, int high) {
    return low + int(random() % uint64_t(high - low + 1));
  };
  for (int trial = 0; trial < 6; ++trial) {
    SCOPED_TRACE(trial);
    AdapterProblem problem = FeedForward(draw(1, 300), 8 * draw(1, 30));
    problem.seed = uint64_t(trial) + 1;
    problem.multiprocessors = draw(1, 20);
    problem.page_bytes = trial % 2 == 0 ? 4096 : 65536;
    const AdapterRig rig(problem);
    std::vector<Rows> runs;
    int input = 0;
    for (int i = draw(1, 7); i > 0; --i) {
      const int adapter = draw(-1, 6);
      // More rows than 32 may not have its ranks.
      runs.push_back(
          {.adapter = adapter, .rows = draw(1, adapter == 3 ? 32 : 90), .first_input = input});
      input += runs.back().rows;
    }
    ExpectFusedEqual(rig, runs);
    EXPECT_EQ(rig.SwiGlu(1, runs, true, 2).bits, rig.SwiGlu(1, runs, true, 3).bits);
    if (HasFatalFailure()) return;
  }
}

TEST(AdapterSwiGluTest, RowsHaveTheSameBitsInAnyStep) {
  const AdapterRig rig(FeedForward(200, 72));
  for (int adapter = -1; adapter < 7; ++adapter) {
    SCOPED_TRACE(adapter);
    const int rows = adapter == 3 ? 32 : 90;  // few rows or many
    const auto together = rig.SwiGlu(1,
                                     std::vector<Rows>{{.adapter = 0, .rows = 5, .first_input = 7},
                                                       {.adapter = adapter, .rows = rows},
                                                       {.adapter = 1, .rows = 1}},
                                     /*fused=*/true);
    for (const int row : {0, 1, 15, 16, rows - 1}) {
      const std::vector<Rows> one = {{.adapter = adapter, .rows = 1, .first_input = row}};
      const auto alone = rig.SwiGlu(1, one, /*fused=*/adapter % 2 == 0);
      ASSERT_FALSE(alone.bits.empty());
      EXPECT_TRUE(std::ranges::equal(together.Bits(5 + row), alone.Bits(0))) << "row " << row;
    }
  }
}

}  // namespace
}  // namespace lorad::kernels::cuda
