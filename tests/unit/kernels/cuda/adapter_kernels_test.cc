// Shrink and expand on the emulator: exact on whole numbers for every kind of shape, and the same
// bits for a row whatever it shares a step with.
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/bf16.h"
#include "tests/unit/kernels/cuda/adapter_rig.h"

namespace lorad::kernels::cuda {
namespace {

float Rounded(double value, bool full) {
  const auto single = static_cast<float>(value);
  return full ? single : cpu::FloatOfBf16(cpu::Bf16OfFloat(single));
}

// Every output of every row, those that nothing is added to and the padding too.
void ExpectExact(const AdapterProblem& problem, uint32_t site, const std::vector<Rows>& runs) {
  const AdapterRig rig(problem);
  const auto result = rig.Step(site, runs);
  int row = 0;
  for (const Rows& run : runs) {
    for (int i = 0; i < run.rows; ++i, ++row) {
      const auto want = rig.Expected(site, run.adapter, run.weight, run.first_input + i);
      for (size_t n = 0; n < want.y.size(); ++n) {
        ASSERT_EQ(result.y[size_t(row) * size_t(result.stride) + n],
                  Rounded(want.y[n], problem.full))
            << "row " << row << " (" << i << " of adapter " << run.adapter << "), output " << n;
      }
    }
  }
}

struct OneModule {
  int rank;
  int inputs;
  int outputs;
  int rows;
};

class OneModuleTest : public testing::TestWithParam<OneModule> {};

TEST_P(OneModuleTest, IsExactOnWholeNumbers) {
  const OneModule p = GetParam();
  for (const bool full : {false, true}) {
    SCOPED_TRACE(full ? "fp32" : "bf16");
    ExpectExact({.inputs = p.inputs,
                 .outputs = p.outputs,
                 .full = full,
                 .adapters = {{{.site = 1, .rank = p.rank, .out_cols = p.outputs, .scale = 0.5f}}},
                 .page_bytes = full ? size_t{12288} : size_t{4096}},
                1, {{.adapter = 0, .rows = p.rows, .weight = 2.0f}});
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, OneModuleTest,
                         testing::Values(OneModule{1, 1, 1, 1}, OneModule{1, 64, 32, 16},
                                         OneModule{7, 65, 33, 9}, OneModule{8, 64, 8, 1},
                                         OneModule{9, 63, 31, 2}, OneModule{15, 128, 64, 8},
                                         OneModule{16, 1000, 100, 3}, OneModule{17, 1024, 129, 16},
                                         OneModule{24, 1025, 40, 5}, OneModule{31, 256, 16, 17},
                                         OneModule{32, 257, 96, 12}, OneModule{40, 2049, 160, 4},
                                         OneModule{48, 1984, 24, 1}, OneModule{56, 320, 72, 33},
                                         OneModule{64, 512, 200, 48}, OneModule{65, 600, 65, 64},
                                         OneModule{100, 300, 257, 65}, OneModule{128, 130, 129, 80},
                                         OneModule{200, 70, 34, 97}, OneModule{256, 192, 100, 20},
                                         OneModule{256, 100, 70, 50}, OneModule{257, 64, 40, 3},
                                         OneModule{300, 64, 40, 40}, OneModule{530, 64, 65, 1}),
                         [](const auto& param) {
                           const OneModule& p = param.param;
                           return "rank" + std::to_string(p.rank) + "_in" +
                                  std::to_string(p.inputs) + "_out" + std::to_string(p.outputs) +
                                  "_rows" + std::to_string(p.rows);
                         });

TEST(AdapterKernelsTest, ModulesOfOneSiteEachChangeTheirColumns) {
  for (const bool full : {false, true}) {
    for (const uint32_t off : {0u, 8u, 3u}) {
      SCOPED_TRACE(testing::Message() << "off " << off << " full " << full);
      // Gaps between them; given out of order; one reads fewer inputs than the others.
      const std::vector<ModuleShape> modules = {
          {.site = 2, .out_begin = off + 150, .rank = 24, .out_cols = 50, .d_in = 90},
          {.site = 2, .out_begin = off, .rank = 5, .out_cols = 70, .scale = 0.25f},
          {.site = 0, .out_begin = 0, .rank = 64, .out_cols = 30},
          {.site = 2, .out_begin = off + 72, .rank = 16, .out_cols = 77, .scale = 2.0f}};
      ExpectExact({.inputs = 200,
                   .outputs = 230,
                   .full = full,
                   .adapters = {modules, {modules[0], modules[3]}, {modules[2]}},
                   .page_bytes = 4096},
                  2,
                  {{.adapter = 1, .rows = 3},
                   {.adapter = -1, .rows = 2, .first_input = 10},
                   {.adapter = 0, .rows = 40, .first_input = 20},
                   {.adapter = 2, .rows = 1, .first_input = 70},
                   {.adapter = 0, .rows = 1, .first_input = 80, .weight = -1.0f}});
    }
  }
}

TEST(AdapterKernelsTest, EveryMixOfRanksRowsAndPages) {
  std::mt19937_64 random(5);
  const auto draw = [&](int low, int high) {
    return low + int(random() % uint64_t(high - low + 1));
  };
  const size_t page_sizes[] = {4096, 12288, 65536, size_t{2} << 20};
  for (int trial = 0; trial < 25; ++trial) {
    AdapterProblem problem{.inputs = draw(1, 1400), .outputs = draw(1, 300)};
    problem.full = trial % 2 == 0;
    problem.page_bytes = page_sizes[trial % 4];
    problem.dtype = trial % 3 == 0 ? DType::kBF16 : DType::kF32;
    problem.multiprocessors = draw(1, 20);
    problem.seed = uint64_t(trial) + 1;
    const int adapters = draw(1, 6);
    for (int i = 0; i < adapters; ++i) {
      auto& modules = problem.adapters.emplace_back();
      for (uint32_t site = 0; site < problem.sites; ++site) {
        int begin = draw(0, 20);
        while (begin < problem.outputs && draw(0, 3) > 0) {
          const int cols = draw(1, problem.outputs - begin);
          modules.push_back({.site = site,
                             .out_begin = uint32_t(begin),
                             .rank = draw(0, 5) == 0 ? draw(65, 140) : draw(1, 64),
                             .out_cols = cols,
                             .scale = draw(0, 1) ? 1.0f : 0.5f});
          begin += cols + draw(0, 9);
        }
      }
    }
    std::vector<Rows> runs;
    for (int i = 0, input = 0; i < draw(1, 8); ++i) {
      runs.push_back({.adapter = draw(-1, adapters - 1),
                      .rows = draw(0, 4) == 0 ? draw(17, 130) : draw(1, 16),
                      .first_input = input,
                      .weight = draw(0, 1) ? 1.0f : 2.0f});
      input += runs.back().rows;
    }
    SCOPED_TRACE(testing::Message() << "trial " << trial);
    ExpectExact(problem, uint32_t(draw(0, 2)), runs);
    if (HasFatalFailure()) return;
  }
}

// The problem whose sums show their order: several spans, ranks of every kind.
AdapterProblem Rounding(bool full) {
  const std::vector<ModuleShape> wide = {
      {.site = 0, .out_begin = 0, .rank = 16, .out_cols = 64, .scale = 0.7f},
      {.site = 0, .out_begin = 64, .rank = 40, .out_cols = 40, .scale = 1.3f}};
  const std::vector<ModuleShape> narrow = {
      {.site = 0, .out_begin = 8, .rank = 4, .out_cols = 90, .scale = 3.0f}};
  return {.inputs = 2500,
          .outputs = 110,
          .full = full,
          .adapters = {wide, narrow},
          .sites = 1,
          .page_bytes = 8192,
          .numbers = Numbers::kNormal};
}

TEST(AdapterKernelsTest, IsCloseOnRealNumbers) {
  for (const bool full : {false, true}) {
    const AdapterProblem problem = Rounding(full);
    const AdapterRig rig(problem);
    const std::vector<Rows> runs = {{.adapter = 0, .rows = 5, .weight = 0.9f},
                                    {.adapter = 1, .rows = 40, .first_input = 5, .weight = 1.1f}};
    const auto result = rig.Step(0, runs);
    int row = 0;
    for (const Rows& run : runs) {
      for (int i = 0; i < run.rows; ++i, ++row) {
        const auto want = rig.Expected(0, run.adapter, run.weight, run.first_input + i);
        for (size_t n = 0; n < want.y.size(); ++n) {
          // v has eight bits, y in bf16 too; the rest is fp32.
          const double tolerance =
              want.added[n] * 0x1p-8 + (full ? 0 : std::abs(want.y[n]) * 0x1p-8) + 1e-5;
          ASSERT_NEAR(result.y[size_t(row) * size_t(result.stride) + n], want.y[n], tolerance);
        }
      }
    }
  }
}

TEST(AdapterKernelsTest, RowsHaveTheSameBitsInAnyStep) {
  for (const bool full : {false, true}) {
    AdapterProblem problem = Rounding(full);
    const AdapterRig rig(problem);
    // Rows of adapter `adapter` with these inputs, alone.
    const auto alone = [&](int adapter, int input) {
      return rig.Step(0, {{.adapter = adapter, .first_input = input}});
    };
    const std::vector<std::vector<Rows>> steps = {
        {{.adapter = 0, .rows = 16}},  // one entry
        {{.adapter = 0, .rows = 23}},  // two
        {{.adapter = 0, .rows = 64}},  // many rows
        {{.adapter = 0, .rows = 90}},  // both
        {{.adapter = 1, .rows = 33}, {.adapter = 0, .rows = 3, .first_input = 40}},
        {{.adapter = 0, .rows = 1},
         {.adapter = -1, .rows = 7, .first_input = 1},
         {.adapter = 1, .rows = 9, .first_input = 8},
         {.adapter = 0, .rows = 50, .first_input = 17}}};
    for (size_t s = 0; s < steps.size(); ++s) {
      const auto together = rig.Step(0, steps[s]);
      int row = 0;
      for (const Rows& run : steps[s]) {
        for (int i = 0; i < run.rows; ++i, ++row) {
          if (i % 5 != 0 && i != run.rows - 1) continue;
          const auto lone = alone(run.adapter, run.first_input + i);
          for (int n = 0; n < together.stride; ++n) {
            ASSERT_EQ(together.Bits(row)[size_t(n)], lone.Bits(0)[size_t(n)])
                << "step " << s << " row " << row << " output " << n;
          }
        }
      }
    }
  }
}

TEST(AdapterKernelsTest, HowWorkIsCutAndOrderedDoesNotShow) {
  AdapterProblem problem = Rounding(false);
  const std::vector<Rows> runs = {{.adapter = 0, .rows = 3},
                                  {.adapter = 1, .rows = 17, .first_input = 3},
                                  {.adapter = 0, .rows = 70, .first_input = 20},
                                  {.adapter = 1, .rows = 1, .first_input = 90}};
  const auto want = AdapterRig(problem).Step(0, runs);
  // More multiprocessors: finer items. Fewer: a block takes many.
  for (const int multiprocessors : {1, 7, 132}) {
    problem.multiprocessors = multiprocessors;
    EXPECT_EQ(AdapterRig(problem).Step(0, runs).bits, want.bits);
  }
  for (const uint64_t seed : {2u, 3u, 4u}) {
    EXPECT_EQ(AdapterRig(problem).Step(0, runs, seed).bits, want.bits);
  }
}

}  // namespace
}  // namespace lorad::kernels::cuda
