#include "tests/simulation/cost_model.h"

#include <gtest/gtest.h>

#include <fstream>

namespace lorad::sim {
namespace {

// The limit of decoding on an H200 as the project's GPU design computes it: contexts of 1024
// tokens, adapters on all projections, nothing but bytes over bandwidth.
TEST(CostModelTest, DecodeAtTheLimitOfTheMemory) {
  CostModel cost = *FindCostModel("h200");
  cost.step_s = cost.any_adapter_s = 0;
  cost.bytes_per_s = 4.8e12;
  const auto milliseconds = [&](int sequences, int rank, int adapters) {
    return 1e3 * StepSeconds(cost, {.rows = sequences,
                                    .context = sequences * 1024,
                                    .pairs = sequences * 1024,
                                    .adapter_bytes =
                                        static_cast<int64_t>(cost.AdapterBytes(rank)) * adapters,
                                    .adapters = adapters});
  };
  EXPECT_NEAR(milliseconds(1, 0, 0), 3.155, 0.01);
  EXPECT_NEAR(milliseconds(64, 0, 0), 4.917, 0.01);
  EXPECT_NEAR(milliseconds(64, 16, 32), 5.48, 0.02);
  EXPECT_NEAR(milliseconds(128, 128, 32), 11.18, 0.03);
}

// And of prompts, at 70 % of the peak (attention there at that rate, too).
TEST(CostModelTest, PrefillAtTheLimitOfTheArithmetic) {
  CostModel cost = *FindCostModel("h100");
  cost.step_s = 0;
  cost.attention_flops_per_s = cost.flops_per_s;
  for (const auto& [tokens, ms] :
       {std::pair(512, 10.4), {1024, 21.0}, {2048, 42.9}, {8192, 190.6}}) {
    const StepShape step{
        .rows = tokens, .context = tokens, .pairs = int64_t{tokens} * (tokens + 1) / 2};
    EXPECT_NEAR(1e3 * StepSeconds(cost, step), ms, 0.015 * ms);
  }
}

// What the daemon took with 1 to 32 clients that decode, and for prompts, when the preset was
// fitted (docs/benchmarks, the page on the scheduler).
TEST(CostModelTest, CpuAsMeasured) {
  const CostModel cost = *FindCostModel("cpu");
  const auto decode = [&](int n) {
    return 1e3 * (cost.host_s +
                  StepSeconds(cost, {.rows = n, .samples = n, .context = n * 72, .pairs = n * 72}));
  };
  for (const auto& [clients, ms] :
       {std::pair(1, 6.1), {4, 6.5}, {8, 7.4}, {16, 11.0}, {32, 20.3}}) {
    EXPECT_NEAR(decode(clients), ms, 0.15 * ms) << clients;
  }
  const StepShape chunk{.rows = 256, .samples = 1, .context = 256, .pairs = 256 * 257 / 2};
  EXPECT_NEAR(1e3 * StepSeconds(cost, chunk), 1e3 / 9.0, 0.15 * 1e3 / 9.0);
}

TEST(CostModelTest, AdaptersTakeWholePages) {
  const CostModel cost = *FindCostModel("h100");
  EXPECT_EQ(cost.AdapterPages(8), 20u);
  EXPECT_EQ(cost.AdapterPages(1), 3u);
}

std::string File(const char* text) {
  const std::string path = testing::TempDir() + "/cost.json";
  std::ofstream(path) << text;
  return path;
}

TEST(CostModelTest, FileChangesWhatItNames) {
  const auto cost = FindCostModel(File(R"({"base": "cpu", "step_s": 0.002, "overlaps": true})"));
  ASSERT_TRUE(cost.ok()) << cost.status();
  EXPECT_EQ(cost->step_s, 0.002);
  EXPECT_TRUE(cost->overlaps);
  EXPECT_EQ(cost->weight_bytes, FindCostModel("cpu")->weight_bytes);
}

TEST(CostModelTest, FileThatIsWrongIsRefused) {
  EXPECT_EQ(FindCostModel("no-such-file").status().code(), absl::StatusCode::kNotFound);
  for (const char* text : {"", "[]", R"({"step": 1})", R"({"step_s": -1})", R"({"step_s": "1"})",
                           R"({"bytes_per_s": 0})", R"({"base": "tpu"})", R"({"pages": 0})"}) {
    EXPECT_EQ(FindCostModel(File(text)).status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
}

}  // namespace
}  // namespace lorad::sim
