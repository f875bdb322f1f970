// What operators and tenants are promised, held in simulation: shares, first tokens, no cliffs.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/simulation/engine_objective.h"
#include "tests/simulation/policy_rules.h"
#include "tests/simulation/simulation.h"
#include "tests/simulation/summary.h"

namespace lorad::sim {
namespace {

SimulationOptions Machine() {
  SimulationOptions options;
  options.server.cost = *FindCostModel("h100");
  options.server.warm = true;
  options.server.engine.max_waiting = 100000;
  options.server.engine.policy.max_adapter_loads = 4;
  return options;
}

Summary SummaryOf(const SimulationOptions& options, const std::vector<SimRequest>& requests) {
  const auto result = Simulate(options, requests);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? Summarize(*result, requests, {}) : Summary{};
}

std::vector<SimRequest> Requests(const char* workload, const WorkloadKnobs& knobs) {
  return *MakeRequests(*MakeWorkload(workload, knobs));
}

double WorstOther(const Summary& s) {
  double worst = 0;
  for (size_t t = 1; t < s.tenants.size(); ++t) worst = std::max(worst, s.tenants[t].ttft_s.p99);
  return worst;
}

// The least share of the tokens that a tenant other than the first had.
double LeastShare(const Summary& s) {
  double all = 0, least = 1e18;
  for (const Summary::Tenant& t : s.tenants) all += t.tokens;
  for (size_t t = 1; t < s.tenants.size(); ++t) least = std::min(least, s.tenants[t].tokens);
  return least / all;
}

TEST(ServiceTest, FloodingTenantGetsNoMoreThanItsShare) {
  // All four want more than a quarter of the machine; the first ten times what the others do.
  const auto requests = Requests("flood", {.rate = 195, .duration_s = 25, .adapters = 40});
  SimulationOptions options = Machine();
  const Summary fair = SummaryOf(options, requests);
  EXPECT_GT(LeastShare(fair), 0.9 * 0.25);
  EXPECT_LT(fair.unfairness, 50000) << "does not grow with time";
  ASSERT_TRUE(SwitchOff("fairness", &options.server.engine.policy));
  const Summary unfair = SummaryOf(options, requests);
  EXPECT_LT(LeastShare(unfair), 0.5 * 0.25) << "else this test shows nothing";
  EXPECT_GT(unfair.unfairness, 500000);
}

TEST(ServiceTest, WeightsAreShares) {
  // All want more than they may have, the second one of six parts three.
  const auto requests = Requests("flood", {.rate = 390, .duration_s = 20, .adapters = 40});
  const auto result = Simulate(Machine(), requests, {1, 3, 1, 1});
  ASSERT_TRUE(result.ok()) << result.status();
  const Summary s = Summarize(*result, requests, {});
  EXPECT_NEAR(s.tenants[1].tokens / s.tenants[2].tokens, 3, 0.3);
  EXPECT_NEAR(s.tenants[0].tokens / s.tenants[2].tokens, 1, 0.1);
}

TEST(ServiceTest, FloodHardlySlowsWhoAsksForLessThanItsShare) {
  const auto requests = Requests("flood", {.rate = 65, .duration_s = 40, .adapters = 40});
  SimulationOptions options = Machine();
  EXPECT_LT(WorstOther(SummaryOf(options, requests)), 0.3);
  ASSERT_TRUE(SwitchOff("fairness", &options.server.engine.policy));
  EXPECT_GT(WorstOther(SummaryOf(options, requests)), 3) << "else this test shows nothing";
}

TEST(ServiceTest, UrgentOnesAreServedAtOnceAndTheOthersNotForgotten) {
  const auto requests = Requests("priorities", {.rate = 65, .duration_s = 40});
  const auto result = Simulate(Machine(), requests);
  ASSERT_TRUE(result.ok()) << result.status();
  std::vector<float> urgent;
  int batch_in_time = 0;
  for (size_t i = 0; i < result->offered; ++i) {
    const RequestRecord& record = result->measurements.records()[i];
    if (requests[i].priority == Priority::kInteractive) urgent.push_back(record.ttft_s);
    if (requests[i].priority == Priority::kBatch && requests[i].start_s + record.ttft_s < 40) {
      ++batch_in_time;
    }
  }
  EXPECT_LT(SpreadOf(&urgent).p99, 0.5);
  EXPECT_GT(batch_in_time, 20);
}

TEST(ServiceTest, WhoCannotBeServedInTimeDoesNotHoldUpWhoCan) {
  const Objective objective{.ttft_s = 2, .gap_s = 0.05};
  SimulationOptions refusing = Machine();
  RefuseLate(objective, &refusing.server.engine);
  const auto goodput = [&](const SimulationOptions& options, double rate, double* accepted) {
    const auto requests = Requests("slora", {.rate = rate, .duration_s = 60, .deadline_s = 20});
    const auto result = Simulate(options, requests);
    EXPECT_TRUE(result.ok()) << result.status();
    const Summary s = Summarize(*result, requests, objective);
    if (accepted != nullptr) *accepted = s.accepted_attainment;
    return s.goodput;
  };
  double accepted = 0;
  const double peak = goodput(refusing, 45, nullptr);
  EXPECT_GT(goodput(refusing, 90, &accepted), 0.9 * peak) << "at twice what it can do";
  EXPECT_GT(accepted, 0.99) << "who was let in is served in time";
  EXPECT_GT(peak, 40);
  EXPECT_LT(goodput(Machine(), 90, nullptr), 0.5 * peak) << "else this test shows nothing";
}

// S-LoRA kept 0.90 of its throughput from 5 adapters to 2,000.
TEST(ServiceTest, ThroughputIsFlatInTheNumberOfAdapters) {
  double requests_per_s[2] = {};
  for (const int many : {0, 1}) {
    const auto requests =
        Requests("slora", {.rate = 24, .duration_s = 60, .adapters = many != 0 ? 2000 : 5});
    requests_per_s[many] = SummaryOf(Machine(), requests).requests_per_s;
  }
  EXPECT_GT(requests_per_s[1], 0.95 * requests_per_s[0]);
}

// SGLang with 8 slots: from 40 ms with 8 adapters to 6.3 s with 16.
TEST(ServiceTest, NoCliffWhereAdaptersDoNotFit) {
  SimulationOptions options = Machine();
  options.server.ranks = {64};
  options.server.pages = 8 * options.server.cost.AdapterPages(64) + 4000;  // not all of 64
  double first_token_s[2] = {};
  for (const int many : {0, 1}) {
    const auto requests =
        Requests("slora", {.rate = 8, .duration_s = 60, .adapters = many != 0 ? 64 : 8});
    const Summary s = SummaryOf(options, requests);
    first_token_s[many] = s.ttft_s.p50;
    EXPECT_EQ(s.count(Outcome::kFinished), requests.size());
    EXPECT_EQ(s.evictions > 100, many != 0);
  }
  EXPECT_LT(first_token_s[1], 2 * first_token_s[0]);
}

}  // namespace
}  // namespace lorad::sim
