#include "tests/simulation/workload.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace lorad::sim {
namespace {

std::vector<SimRequest> Make(const char* name, const WorkloadKnobs& knobs) {
  const auto workload = MakeWorkload(name, knobs);
  EXPECT_TRUE(workload.ok()) << workload.status();
  return *MakeRequests(*workload);
}

TEST(WorkloadTest, AllAreSortedAndWithinTheirBounds) {
  for (const WorkloadName& name : WorkloadNames()) {
    const auto requests = Make(name.name, {.rate = 20, .duration_s = 60, .adapters = 40});
    EXPECT_NEAR(static_cast<double>(requests.size()), 1200, 10) << name.name;
    EXPECT_TRUE(std::is_sorted(requests.begin(), requests.end(),
                               [](const auto& a, const auto& b) { return a.start_s < b.start_s; }));
    for (const SimRequest& r : requests) {
      EXPECT_GE(r.adapter, -1);
      EXPECT_LT(r.adapter, 40);
      EXPECT_GE(r.prompt_tokens, r.shared_tokens + 8);
      EXPECT_GE(r.max_tokens, r.output_tokens);
    }
  }
}

TEST(WorkloadTest, PlainOneIsTheTraceOfSLoRA) {
  const bench::WorkloadOptions options{.adapters = 10, .rate = 5, .duration_s = 20};
  const auto trace = bench::OpenLoopTrace(options);
  const auto requests = Make("slora", {.rate = 5, .duration_s = 20, .adapters = 10});
  ASSERT_EQ(requests.size(), trace.size());
  for (size_t i = 0; i < trace.size(); ++i) {
    EXPECT_EQ(requests[i].start_s, trace[i].start_s);
    EXPECT_EQ(requests[i].adapter, trace[i].adapter);
    EXPECT_EQ(requests[i].prompt_tokens, trace[i].input_tokens);
    EXPECT_EQ(requests[i].output_tokens, trace[i].output_tokens);
  }
}

TEST(WorkloadTest, BurstsKeepTheMeanRate) {
  const auto requests = Make("bursts", {.rate = 100, .duration_s = 300, .cv = 0.1});
  int in_bursts = 0;
  for (const SimRequest& r : requests) in_bursts += std::fmod(r.start_s, 30) < 5 ? 1 : 0;
  // 5 s at 5 times the rate of the other 25.
  EXPECT_NEAR(in_bursts / static_cast<double>(requests.size()), 0.5, 0.02);
  EXPECT_NEAR(requests.back().start_s, 300, 3);
}

TEST(WorkloadTest, FloodingTenantSendsTenTimesAsMuch) {
  const auto requests = Make("flood", {.rate = 26, .duration_s = 200, .adapters = 40});
  int by_tenant[4] = {};
  for (const SimRequest& r : requests) {
    ++by_tenant[r.tenant];
    EXPECT_EQ(r.adapter / 10, r.tenant);
  }
  for (int t = 1; t < 4; ++t)
    EXPECT_NEAR(by_tenant[0] / static_cast<double>(by_tenant[t]), 10, 0.1);
}

TEST(WorkloadTest, ClientsLeaveAfterTheyCame) {
  int leave = 0, at_once = 0;
  for (const SimRequest& r : Make("cancel", {.rate = 10, .duration_s = 100})) {
    if (r.cancel_s == kNever) continue;
    ++leave;
    EXPECT_GE(r.cancel_s, r.start_s);
    at_once += r.cancel_s == 50 ? 1 : 0;
  }
  EXPECT_GT(leave, 550);
  EXPECT_GT(at_once, 400);
}

TEST(WorkloadTest, SeedsDiffer) {
  const auto a = Make("slora", {.seed = 1}), b = Make("slora", {.seed = 1}),
             c = Make("slora", {.seed = 2});
  EXPECT_EQ(a[5].start_s, b[5].start_s);
  EXPECT_NE(a[5].start_s, c[5].start_s);
}

TEST(WorkloadTest, WrongOnesAreRefused) {
  EXPECT_EQ(MakeWorkload("none", {}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(MakeRequests(*MakeWorkload("slora", {.rate = 0})).ok());
}

}  // namespace
}  // namespace lorad::sim
