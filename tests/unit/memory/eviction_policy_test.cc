// What lorad's order of eviction is for, asserted in the virtual time of tests/bench/eviction: it
// loses less work than lists of least recently used things, shared or split, do.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/bench/eviction/replay.h"

namespace lorad::bench {
namespace {

constexpr Policy kOurs{.name = "one queue"};
constexpr Policy kRivals[] = {
    {.name = "one LRU", .lru = true},
    {.name = "10/90 LRU", .lru = true, .adapter_share = 0.1},
    {.name = "30/70 LRU", .lru = true, .adapter_share = 0.3},
    {.name = "50/50 LRU", .lru = true, .adapter_share = 0.5},
    {.name = "drop at once", .keep_adapters = false, .keep_prefixes = false},
};

TraceOptions SLora() {
  return {.arrivals = {
              .adapters = 100, .alpha = 0.3, .rate = 2, .duration_s = 300, .output = {8, 256}}};
}

TraceOptions Mixed() {
  TraceOptions options = SLora();
  options.arrivals.rate = 1;
  options.system_tokens = 400;
  options.conversations = 0.25;
  options.scans = 0.05;
  return options;
}

void ExpectLosesLeast(const TraceOptions& options) {
  const std::vector<TracedRequest> trace = MakeTrace(options, kCpu.step_s);
  const double least = Replay(trace, kCpu, 1'000'000, kOurs).busy_s();
  const double ours = Replay(trace, kCpu, 3000, kOurs).busy_s() - least;
  EXPECT_GT(ours, 0);  // the pool is too small for all
  for (const Policy& rival : kRivals) {
    EXPECT_LT(ours, Replay(trace, kCpu, 3000, rival).busy_s() - least) << rival.name;
  }
}

TEST(EvictionPolicy, LosesLeastWherePromptsHaveNothingInCommon) { ExpectLosesLeast(SLora()); }

TEST(EvictionPolicy, LosesLeastWherePromptsShare) { ExpectLosesLeast(Mixed()); }

TEST(EvictionReplay, AnEndlessPoolLoadsEachAdapterOnceAndComputesEachPrefixOnce) {
  const std::vector<TracedRequest> trace = MakeTrace(Mixed(), kCpu.step_s);
  std::set<int> adapters;
  for (const TracedRequest& request : trace) adapters.insert(request.adapter);
  const Result all = Replay(trace, kCpu, 1'000'000, kOurs);
  EXPECT_EQ(all.requests, trace.size());
  EXPECT_EQ(all.requests - all.adapter_hits, adapters.size());
  EXPECT_GT(all.hit_tokens, all.prompt_tokens / 2);
  EXPECT_EQ(all.wait_s, 0);
  const Result none = Replay(trace, kCpu, 1'000'000, kRivals[std::size(kRivals) - 1]);
  EXPECT_EQ(none.hit_tokens, 0u);
  EXPECT_EQ(none.prompt_tokens, all.prompt_tokens);
  EXPECT_NEAR(none.prefill_s - all.prefill_s, all.hit_tokens * kCpu.token_s, 1e-6);
}

TEST(EvictionTrace, EachTurnBeginsWithAllThatWasSaid) {
  TraceOptions options = Mixed();
  options.conversations = 1;
  options.scans = 0;
  const std::vector<TracedRequest> trace = MakeTrace(options, 0.025);
  EXPECT_TRUE(std::is_sorted(trace.begin(), trace.end(),
                             [](const auto& a, const auto& b) { return a.start_s < b.start_s; }));
  int turns = 0;
  for (const TracedRequest& later : trace) {
    turns += std::any_of(trace.begin(), trace.end(), [&](const TracedRequest& earlier) {
      return earlier.adapter == later.adapter && earlier.text.size() < later.text.size() &&
             std::equal(earlier.text.begin(), earlier.text.end(), later.text.begin());
    });
  }
  EXPECT_EQ(turns, static_cast<int>(trace.size()) - 300);  // all but the first ones
}

}  // namespace
}  // namespace lorad::bench
