// The engine's reports as series: each number in its place.
#include "server/metrics.h"

#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <chrono>
#include <map>
#include <sstream>
#include <vector>

#include "memory/base/error_detail.h"

namespace lorad {
namespace {

// Every series without a histogram's, as it is written, with its value.
std::map<std::string, double> Series(const Metrics& metrics) {
  std::map<std::string, double> series;
  std::istringstream lines(prometheus::TextSerializer().Serialize(metrics.registry()->Collect()));
  for (std::string line; std::getline(lines, line);) {
    const size_t space = line.rfind(' ');
    if (line.starts_with('#') || space == std::string::npos) continue;
    series[line.substr(0, space)] = std::stod(line.substr(space + 1));
  }
  return series;
}

TEST(MetricsTest, GaugesShowEveryStateOfThePool) {
  Metrics metrics;
  metrics.OnGauges({.running = 1,
                    .waiting = 2,
                    .pages_total = 100,
                    .pages_free = 3,
                    .pages_kv = 4,
                    .pages_kv_cached = 5,
                    .pages_adapter = 6,
                    .pages_loading = 7,
                    .pages_adapter_idle = 8,
                    .pages_adapter_pinned = 9,
                    .waste_kv_bytes = 15,
                    .waste_adapter_bytes = 16,
                    .adapters_loading = 10,
                    .adapters_resident = 11,
                    .adapters_in_use = 12,
                    .adapters_pinned = 13});
  metrics.SetStoredAdapters(14);
  const auto series = Series(metrics);
  const std::pair<const char*, double> expected[] = {
      {"lorad_requests_running", 1},
      {"lorad_requests_waiting", 2},
      {"lorad_pool_pages{use=\"free\"}", 3},
      {"lorad_pool_pages{use=\"kv\"}", 4},
      {"lorad_pool_pages{use=\"kv_cached\"}", 5},
      {"lorad_pool_pages{use=\"adapter\"}", 6},
      {"lorad_pool_pages{use=\"loading\"}", 7},
      {"lorad_pool_pages_pinned", 9},
      {"lorad_pool_waste_bytes{use=\"kv\"}", 15},
      {"lorad_pool_waste_bytes{use=\"adapter\"}", 16},
      {"lorad_adapters{state=\"loading\"}", 10},
      {"lorad_adapters{state=\"resident\"}", 11},
      {"lorad_adapters{state=\"in_use\"}", 12},
      {"lorad_adapters{state=\"pinned\"}", 13},
      {"lorad_adapters{state=\"stored\"}", 14}};
  for (const auto& [name, value] : expected) EXPECT_EQ(series.at(name), value) << name;
}

TEST(MetricsTest, PrefixCacheCountersAddUp) {
  Metrics metrics;
  metrics.OnStep({.queried_tokens = 100, .cached_tokens = 60, .prefix_evictions = 3});
  metrics.OnStep({.queried_tokens = 10, .cached_tokens = 1, .prefix_evictions = 4});
  const auto series = Series(metrics);
  EXPECT_EQ(series.at("lorad_prefix_cache_queried_tokens_total"), 110);
  EXPECT_EQ(series.at("lorad_prefix_cache_hit_tokens_total"), 61);
  EXPECT_EQ(series.at("lorad_prefix_cache_evicted_pages_total"), 7);
  EXPECT_EQ(metrics.totals().cached_tokens, 61);
  EXPECT_EQ(metrics.totals().prefix_evictions, 7);
}

TEST(MetricsTest, HostTier) {
  Metrics metrics;
  metrics.SetHostTier({.bytes = 10, .capacity_bytes = 20, .adapters = 3, .hits = 4, .misses = 5});
  metrics.SetHostTier(
      {.bytes = 11, .capacity_bytes = 20, .adapters = 3, .hits = 6, .misses = 5, .evictions = 2});
  const auto series = Series(metrics);
  EXPECT_EQ(series.at("lorad_host_tier_bytes"), 11);
  EXPECT_EQ(series.at("lorad_host_tier_capacity_bytes"), 20);
  EXPECT_EQ(series.at("lorad_host_tier_adapters"), 3);
  EXPECT_EQ(series.at("lorad_host_tier_hits_total"), 6);
  EXPECT_EQ(series.at("lorad_host_tier_misses_total"), 5);
  EXPECT_EQ(series.at("lorad_host_tier_evictions_total"), 2);
}

StreamEnd Ended(double first_s, double total_s, int tokens,
                absl::Status status = absl::OkStatus()) {
  const auto time = [](double s) {
    return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(s));
  };
  StreamEnd end;
  end.status = std::move(status);
  end.usage.output_tokens = tokens;
  end.timings.first_token = time(first_s);
  end.timings.total = time(total_s);
  return end;
}

TEST(ServiceMetricsTest, GoodputIsWhatMetTheObjectivesOfItsClass) {
  Metrics metrics;
  Objectives objectives;
  objectives[0] = {.first_token = std::chrono::milliseconds(500),
                   .inter_token = std::chrono::milliseconds(50)};
  metrics.SetObjectives(objectives);
  GenerationRequest request;
  request.priority = Priority::kInteractive;
  metrics.OnFinish(request, Ended(0.5, 1.0, 11));    // just
  metrics.OnFinish(request, Ended(0.501, 0.6, 11));  // its first token was late
  metrics.OnFinish(request, Ended(0.1, 0.651, 12));  // the others were slow
  metrics.OnFinish(request, Ended(0.4, 0.4, 1));     // there are no others
  metrics.OnFinish(request, Ended(0.1, 0.2, 5, absl::DeadlineExceededError("")));
  metrics.OnFinish(request, Ended(0.1, 0.2, 5, absl::CancelledError("")));
  metrics.OnRefused(Priority::kInteractive, absl::ResourceExhaustedError(""));
  metrics.OnRefused(Priority::kInteractive, absl::InvalidArgumentError(""));
  metrics.OnRefused(Priority::kInteractive, absl::NotFoundError(""));
  GenerationRequest batch;
  batch.priority = Priority::kBatch;
  metrics.OnFinish(batch, Ended(100, 1000, 7));  // nothing was promised
  const auto series = Series(metrics);
  const std::pair<const char*, double> expected[] = {
      {"lorad_offered_requests_total{priority=\"interactive\"}", 6},
      {"lorad_goodput_requests_total{priority=\"interactive\"}", 2},
      {"lorad_goodput_tokens_total{priority=\"interactive\"}", 12},
      {"lorad_offered_output_tokens_total{priority=\"interactive\"}", 40},
      {"lorad_offered_requests_total{priority=\"standard\"}", 0},
      {"lorad_offered_requests_total{priority=\"batch\"}", 1},
      {"lorad_goodput_requests_total{priority=\"batch\"}", 1},
      {"lorad_goodput_tokens_total{priority=\"batch\"}", 7}};
  for (const auto& [name, value] : expected) EXPECT_EQ(series.at(name), value) << name;
}

TEST(ServiceMetricsTest, WhatIsScoredHasItsEndForAFirstToken) {
  Metrics metrics;
  Objectives objectives;
  objectives[1] = {.first_token = std::chrono::milliseconds(500)};
  metrics.SetObjectives(objectives);
  GenerationRequest request;
  request.score = true;
  metrics.OnFinish(request, Ended(0, 0.4, 0));
  metrics.OnFinish(request, Ended(0, 0.6, 0));
  EXPECT_EQ(Series(metrics).at("lorad_goodput_requests_total{priority=\"standard\"}"), 1);
}

TEST(ServiceMetricsTest, RefusalsAreCountedByReason) {
  Metrics metrics;
  const auto refused = [](const char* reason) {
    return WithReason(absl::ResourceExhaustedError(""), reason);
  };
  metrics.OnRefused(Priority::kStandard, refused("QUEUE_FULL"));
  metrics.OnRefused(Priority::kStandard, refused("DEADLINE_UNREACHABLE"));
  metrics.OnFinish({}, Ended(0, 1, 0, refused("DEADLINE_UNREACHABLE")));  // while it waited
  metrics.OnRefused(Priority::kStandard, refused("SOMETHING_ELSE"));
  const auto series = Series(metrics);
  EXPECT_EQ(series.at("lorad_refusals_total{reason=\"QUEUE_FULL\"}"), 1);
  EXPECT_EQ(series.at("lorad_refusals_total{reason=\"DEADLINE_UNREACHABLE\"}"), 2);
  EXPECT_EQ(series.at("lorad_refusals_total{reason=\"TENANT_QUEUE_FULL\"}"), 0);
}

TEST(ServiceMetricsTest, LatenciesByClassAndForecasts) {
  Metrics metrics;
  GenerationRequest request;
  metrics.OnFirstToken(request, {}, std::chrono::seconds(3));  // nothing was foreseen
  request.priority = Priority::kInteractive;
  request.foreseen_first_token_s = 2;
  metrics.OnFirstToken(request, {}, std::chrono::seconds(3));
  metrics.OnInterToken(Priority::kBatch, std::vector<double>{0.01, 0.03});
  const auto series = Series(metrics);
  const std::pair<const char*, double> expected[] = {
      {"lorad_time_to_first_token_seconds_count{priority=\"interactive\"}", 1},
      {"lorad_time_to_first_token_seconds_sum{priority=\"interactive\"}", 3},
      {"lorad_time_to_first_token_seconds_count{priority=\"standard\"}", 1},
      {"lorad_inter_token_latency_seconds_count{priority=\"batch\"}", 2},
      {"lorad_inter_token_latency_seconds_sum{priority=\"batch\"}", 0.04},
      {"lorad_inter_token_latency_seconds_count{priority=\"standard\"}", 0},
      {"lorad_first_token_forecast_ratio_count", 1},
      {"lorad_first_token_forecast_ratio_sum", 1.5}};
  for (const auto& [name, value] : expected) EXPECT_EQ(series.at(name), value) << name;
}

// Their number must not grow with adapters, tenants or requests.
TEST(MetricsTest, NoSeriesIsLabelledByAdapterTenantOrRequest) {
  Metrics metrics;
  const size_t before = Series(metrics).size();
  for (int i = 0; i < 50; ++i) {
    AdapterVersion version;
    version.name = "acme/adapter-" + std::to_string(i);
    metrics.OnAdapterLoad(version, std::chrono::seconds(1), absl::OkStatus());
    GenerationRequest request;
    request.tenant = "tenant-" + std::to_string(i);
    request.request_id = "request-" + std::to_string(i);
    metrics.OnFinish(request, StreamEnd());
    metrics.OnRefused(Priority::kStandard,
                      absl::NotFoundError("there is no adapter x" + std::to_string(i)));
  }
  EXPECT_EQ(Series(metrics).size(), before);
}

}  // namespace
}  // namespace lorad
