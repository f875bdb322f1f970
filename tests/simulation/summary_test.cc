// Figures, pictures and plans made of simulations.
#include "tests/simulation/summary.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/simulation/capacity_plan.h"
#include "tests/simulation/svg_plot.h"

namespace lorad::sim {
namespace {

// Ten requests, a second apart, all finished after 2 s with 11 tokens, the first after 0.5 s.
struct MadeRun {
  MadeRun() {
    for (size_t i = 0; i < requests.size(); ++i) {
      requests[i].start_s = static_cast<double>(i + 1);
      requests[i].tenant = i % 2 == 0 ? 0 : 1;
      result.measurements.record(i) = {.outcome = Outcome::kFinished,
                                       .output_tokens = 11,
                                       .ttft_s = 0.5f,
                                       .gap_mean_s = 0.15f,
                                       .total_s = 2};
    }
    result.offered = 10;
    result.arrivals_s = 10;
    result.end_s = 12;
  }
  std::vector<SimRequest> requests = std::vector<SimRequest>(10);
  SimulationResult result{.measurements = Measurements(10, 2, 1)};
};

TEST(SummaryTest, ObjectiveIsKeptByWhoFinishesInTime) {
  MadeRun run;
  run.result.measurements.record(0).ttft_s = 3;
  run.result.measurements.record(1).outcome = Outcome::kRefused;
  run.result.measurements.record(2).outcome = Outcome::kCancelled;  // no fault of the server
  run.result.measurements.record(3).gap_mean_s = 1;
  Summary s = Summarize(run.result, run.requests, {.ttft_s = 1});
  EXPECT_NEAR(s.attainment, 7 / 9.0, 1e-9);
  EXPECT_NEAR(s.goodput, 0.7, 1e-9);
  EXPECT_EQ(s.count(Outcome::kFinished), 8u);
  s = Summarize(run.result, run.requests, {.ttft_s = 1, .gap_s = 0.2});
  EXPECT_NEAR(s.attainment, 6 / 9.0, 1e-9);
  ASSERT_EQ(s.tenants.size(), 2u);
  EXPECT_NEAR(s.tenants[0].attainment, 3 / 4.0, 1e-9);
  EXPECT_NEAR(s.tenants[1].attainment, 3 / 5.0, 1e-9);
}

TEST(SummaryTest, ThroughputIsOfTheTimeInWhichRequestsCome) {
  MadeRun run;
  run.result.measurements.AddService(0, At(1.5), 0, 100);
  run.result.measurements.AddService(1, At(9.9), 7, 100);
  run.result.measurements.AddService(1, At(10.5), 0, 100);
  const Summary s = Summarize(run.result, run.requests, {});
  EXPECT_NEAR(s.requests_per_s, 0.8, 1e-9) << "the last two end later";
  EXPECT_NEAR(s.output_tokens_per_s, 20, 1e-9);
  EXPECT_EQ(s.tenants[1].tokens, 107);
}

TEST(SummaryTest, NearestRank) {
  std::vector<float> samples;
  for (int i = 100; i >= 1; --i) samples.push_back(static_cast<float>(i));
  const Spread s = SpreadOf(&samples);
  EXPECT_EQ(s.p50, 50);
  EXPECT_EQ(s.p99, 99);
  EXPECT_EQ(s.max, 100);
  EXPECT_EQ(s.mean, 50.5);
}

TEST(SummaryTest, JsonSaysTheSame) {
  MadeRun run;
  const Summary s = Summarize(run.result, run.requests, {});
  const auto json = nlohmann::json::parse(ToJson(s));
  EXPECT_EQ(json["offered"], 10);
  EXPECT_EQ(json["outcomes"]["finished"], 10);
  EXPECT_EQ(json["tenants"].size(), 2u);
  EXPECT_NEAR(json["ttft_s"]["p99"].get<double>(), 0.5, 1e-6);
  EXPECT_NE(ToText(s, {}).find("finished 10"), std::string::npos);
}

TEST(SvgPlotTest, DrawsWhatCanBeDrawn) {
  const std::string svg =
      ToSvg({.title = "a < b",
             .curves = {{.name = "one", .points = {{1, 10}, {2, 0}, {4, 1000}}}},
             .log_y = true});
  EXPECT_NE(svg.find("a &lt; b"), std::string::npos);
  // Zero has no logarithm: two points, from the floor of the picture to its top.
  EXPECT_NE(svg.find("points=\"192.5,352.0 560.0,36.0 \""), std::string::npos) << svg;
  EXPECT_EQ(ToSvg({}).find("nan"), std::string::npos) << "nothing to draw";
}

TEST(CapacityPlanTest, LeastNumberOfServersThatIsEnough) {
  CapacityQuestion question;
  question.options.server.cost = *FindCostModel("h100");
  question.pages = {4000, 20000};
  question.objective.ttft_s = 1;
  const auto workload = MakeWorkload("slora", {.rate = 60, .duration_s = 30, .adapters = 100});
  const auto rows = PlanCapacity(question, *MakeRequests(*workload), {}, nullptr);
  ASSERT_TRUE(rows.ok()) << rows.status();
  std::vector<int> servers[2];
  for (const CapacityRow& row : *rows) {
    servers[row.pages == 4000 ? 0 : 1].push_back(row.servers);
    EXPECT_EQ(row.enough, row.summary.attainment >= 0.99);
  }
  for (const auto& tried : servers) {
    for (size_t i = 0; i < tried.size(); ++i) EXPECT_EQ(tried[i], static_cast<int>(i) + 1);
  }
  EXPECT_GT(servers[0].size(), servers[1].size()) << "with less room more servers are needed";
  EXPECT_TRUE(rows->back().enough);
  EXPECT_GT(servers[1].size(), 1u);
}

}  // namespace
}  // namespace lorad::sim
