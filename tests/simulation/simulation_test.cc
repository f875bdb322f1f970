// Whole simulations, with every invariant checked at every step.
#include "tests/simulation/simulation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/simulation/random_case.h"

namespace lorad::sim {
namespace {

SimulationOptions Machine(uint32_t pages = 0) {
  SimulationOptions options;
  options.server.cost = *FindCostModel("h100");
  options.server.pages = pages;
  options.server.engine.max_waiting = 100000;
  options.server.validate_every = 101;
  return options;
}

std::vector<SimRequest> Requests(const char* workload, const WorkloadKnobs& knobs) {
  const auto made = MakeWorkload(workload, knobs);
  EXPECT_TRUE(made.ok()) << made.status();
  return *MakeRequests(*made);
}

int Count(const SimulationResult& result, Outcome outcome) {
  const auto& records = result.measurements.records();
  return static_cast<int>(std::count_if(records.begin(), records.end(),
                                        [&](const auto& r) { return r.outcome == outcome; }));
}

TEST(SimulationTest, EqualSeedsGiveEqualRuns) {
  for (const WorkloadName& name : WorkloadNames()) {
    std::vector<uint64_t> hashes;
    for (const uint32_t seed : {1u, 1u, 2u}) {
      const auto result = Simulate(
          Machine(2000), Requests(name.name, {.rate = 10, .duration_s = 20, .seed = seed}));
      ASSERT_TRUE(result.ok()) << name.name << ": " << result.status();
      hashes.push_back(result->hash);
    }
    EXPECT_EQ(hashes[0], hashes[1]) << name.name;
    EXPECT_NE(hashes[0], hashes[2]) << name.name;
  }
}

TEST(SimulationTest, EveryRequestOfAnIdleServerFinishes) {
  const auto result =
      Simulate(Machine(), Requests("slora", {.rate = 2, .duration_s = 100, .adapters = 50}));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(Count(*result, Outcome::kFinished), 200);
  for (const RequestRecord& r : result->measurements.records()) {
    // A load from disk, a prefill of at most 511 tokens in two chunks, steps of some 5 ms.
    EXPECT_LT(r.ttft_s, 0.5);
    if (r.output_tokens > 1) {
      EXPECT_GT(r.gap_mean_s, 0.0045);
    }
    EXPECT_LT(r.gap_mean_s, 0.03);
  }
}

// Wherever random cases go: this many every time, more by hand (lorad-sim soak).
TEST(SimulationTest, RandomCasesKeepTheInvariants) {
  uint64_t preempted = 0, evicted = 0, failed = 0, cancelled = 0, found = 0, late = 0, refused = 0;
  for (uint64_t seed = 1; seed <= 80; ++seed) {
    RandomCase random_case = MakeRandomCase(seed, 300);
    random_case.options.server.validate_every = 53;
    const auto result = RunRandomCase(random_case);
    ASSERT_TRUE(result.ok()) << result.status();
    for (const auto& server : result->servers) {
      preempted += server.preemptions;
      evicted += server.evictions;
      found += server.cached_tokens;
    }
    failed += static_cast<uint64_t>(Count(*result, Outcome::kFailed));
    cancelled += static_cast<uint64_t>(Count(*result, Outcome::kCancelled));
    late += static_cast<uint64_t>(Count(*result, Outcome::kDeadline));
    refused += static_cast<uint64_t>(Count(*result, Outcome::kRefused));
  }
  // They go everywhere.
  for (const uint64_t events : {preempted, evicted, failed, cancelled, found, late, refused}) {
    EXPECT_GT(events, 10u);
  }
}

TEST(SimulationTest, ClientsThatLeaveAtOnceLeaveNothingBehind) {
  const auto requests = Requests("cancel", {.rate = 40, .duration_s = 20, .adapters = 30});
  const auto result = Simulate(Machine(3000), requests);
  ASSERT_TRUE(result.ok()) << result.status();
  for (size_t i = 0; i < requests.size(); ++i) {
    const RequestRecord& record = result->measurements.records()[i];
    EXPECT_TRUE(record.outcome == Outcome::kCancelled || record.outcome == Outcome::kFinished);
    // Within a step or two.
    EXPECT_LT(requests[i].start_s + record.total_s, requests[i].cancel_s + 0.1);
  }
  EXPECT_GT(Count(*result, Outcome::kCancelled), 200);
}

// As SGLang's A, B, A, A, A, ...: the pool holds few adapters and one of them is always wanted.
TEST(SimulationTest, SlowReadersGetAllTheirTokensUnlessTheyAreTooSlow) {
  Workload workload = *MakeWorkload("slora", {.rate = 4, .duration_s = 20, .adapters = 5});
  workload.streams[0].slow_share = 0.5;
  workload.streams[0].read_every_s = 0.5;
  const std::vector<SimRequest> requests = *MakeRequests(workload);
  const auto slow = std::count_if(requests.begin(), requests.end(),
                                  [](const SimRequest& r) { return r.read_every_s > 0; });
  EXPECT_NEAR(static_cast<double>(slow) / static_cast<double>(requests.size()), 0.5, 0.25);
  for (const bool patient : {true, false}) {
    SimulationOptions options = Machine();
    options.server.engine.slow_reader_timeout = For(patient ? 10 : 0.1);
    const auto result = Simulate(options, requests);
    ASSERT_TRUE(result.ok()) << result.status();
    const int finished = Count(*result, Outcome::kFinished);
    EXPECT_EQ(finished + Count(*result, Outcome::kRefused), static_cast<int>(requests.size()));
    if (patient) {
      EXPECT_EQ(finished, static_cast<int>(requests.size()));
      EXPECT_GT(result->measurements.gaps().Percentile(0.99), 0.4) << "they are waited for";
    } else {
      EXPECT_LT(finished, static_cast<int>(requests.size() - static_cast<size_t>(slow) / 2));
      EXPECT_GE(finished, static_cast<int>(requests.size()) - static_cast<int>(slow));
    }
  }
}

TEST(SimulationTest, NobodyStarvesBehindAHotAdapter) {
  SimulationOptions options = Machine(600);
  options.server.ranks = {64};  // 160 pages
  const auto requests = Requests("hot", {.rate = 6, .duration_s = 100, .adapters = 20});
  const auto result = Simulate(options, requests);
  ASSERT_TRUE(result.ok()) << result.status();
  double longest = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(result->measurements.records()[i].outcome, Outcome::kFinished);
    longest = std::max(longest, static_cast<double>(result->measurements.records()[i].queue_s));
  }
  EXPECT_LT(longest, 30);
}

TEST(SimulationTest, ServersShareTheLoadAndTheAdapters) {
  SimulationOptions options = Machine(6000);
  options.servers = 4;
  const auto requests = Requests("slora", {.rate = 40, .duration_s = 30, .adapters = 200});
  uint64_t loads[2] = {};
  for (const Routing routing : {Routing::kAffine, Routing::kLeastLoaded}) {
    options.routing = routing;
    const auto result = Simulate(options, requests);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(Count(*result, Outcome::kFinished), 1200);
    int by_server[4] = {};
    for (const RequestRecord& r : result->measurements.records()) ++by_server[r.server];
    for (const int requests_there : by_server) EXPECT_NEAR(requests_there, 300, 120);
    for (const auto& stats : result->loads) loads[static_cast<int>(routing)] += stats.loads;
  }
  EXPECT_LT(2 * loads[0], loads[1]) << "affine routing loads less";
}

TEST(SimulationTest, PreemptionCostsTimeAndChangesNoToken) {
  // Room for a dozen sequences that want to grow, all admitted.
  SimulationOptions options = Machine(400);
  options.server.ranks = {8};
  options.server.engine.policy.admission = AdmissionMode::kPromptOnly;
  const auto result = Simulate(
      options,
      Requests(
          "slora",
          {.rate = 20, .duration_s = 10, .adapters = 3, .input = {8, 64}, .output = {256, 512}}));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(result->servers[0].preemptions, 20u);
  EXPECT_EQ(Count(*result, Outcome::kFinished), 200);
}

TEST(SimulationTest, NoArrivalsAfterSoManySteps) {
  SimulationOptions options = Machine();
  options.max_steps = 500;
  const auto result = Simulate(options, Requests("slora", {.rate = 10, .duration_s = 100}));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_LT(result->offered, 200u);
  EXPECT_EQ(Count(*result, Outcome::kFinished), static_cast<int>(result->offered));
}

}  // namespace
}  // namespace lorad::sim
