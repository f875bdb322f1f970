// More adapters than a server with slots has: SGLang's thrash, and an adapter that is always
// wanted.
#include <fmt/format.h>

#include "tests/simulation/evidence/evidence.h"

namespace lorad::sim {
namespace {

// Two H100 in tensor parallel, taken for one of twice the speed. 16 GiB of adapters at most fit
// beside what the sequences need.
SimulationOptions TwoH100() {
  SimulationOptions options = Machine();
  CostModel& cost = options.server.cost;
  cost.bytes_per_s *= 2;
  cost.flops_per_s *= 2;
  cost.attention_flops_per_s *= 2;
  options.server.ranks = {64};
  options.server.pages = 45000;  // 88 GiB
  return options;
}

std::string Adapters() {
  std::string text = TableHead({"adapters", "first token, p50 ms", "over 8", "p99 ms",
                                "between tokens, p50 ms", "loads", "evictions"});
  double base = 0;
  for (const int adapters : {8, 16, 64, 256, 1000}) {
    const auto requests = Requests("slora", {.rate = 4,
                                             .duration_s = 300,
                                             .adapters = adapters,
                                             .input = {1, 4097},
                                             .output = {1, 2049}});
    const Summary s = Measure(TwoH100(), requests).summary;
    if (base == 0) base = s.ttft_s.p50;
    text += TableRow({fmt::format("{}", adapters), fmt::format("{:.1f}", 1e3 * s.ttft_s.p50),
                      fmt::format("{:.2f}", s.ttft_s.p50 / base),
                      fmt::format("{:.0f}", 1e3 * s.ttft_s.p99),
                      fmt::format("{:.1f}", 1e3 * s.gap_s.p50), fmt::format("{}", s.loads),
                      fmt::format("{}", s.evictions)});
  }
  return text;
}

// A, B, A, A, A ...: one of twelve adapters is wanted all the time, and the pool holds two or three
// beside the sequences.
std::string HotAdapter() {
  std::string text = TableHead(
      {"pool, MiB", "", "first token, p50 s", "p99 s", "longest s", "loads", "not served in 30 s"});
  const auto requests = Requests("hot", {.rate = 14,
                                         .duration_s = 300,
                                         .adapters = 12,
                                         .input = {8, 256},
                                         .output = {8, 256},
                                         .tenants = 1});
  for (const uint32_t pages : {500u, 600u, 900u}) {
    for (const bool fcfs : {true, false}) {
      SimulationOptions options = fcfs ? WithFcfs(Machine()) : Machine();
      options.server.ranks = {64};
      options.server.pages = pages;
      options.server.engine.policy.reserve_pages = pages / 100;
      const Summary s = Measure(options, requests).summary;
      text += TableRow({fmt::format("{}", pages * 2), fcfs ? "FCFS" : "all rules",
                        fmt::format("{:.3f}", s.ttft_s.p50), fmt::format("{:.2f}", s.ttft_s.p99),
                        fmt::format("{:.2f}", s.ttft_s.max), fmt::format("{}", s.loads),
                        fmt::format("{}", s.count(Outcome::kFailed))});
    }
  }
  return text;
}

}  // namespace

std::string SlotsSection(const Pictures&) {
  return "\n## More adapters than would fit into slots\n"
         "SGLang on two H100 with 8 slots, 4 requests a second of up to 4096 and 2048 tokens: the "
         "median of the first token went from 40 ms with 8 adapters to 6278 ms with 16 (its\n"
         "pull request 13349). Here adapters of rank 64 (336 MB each) share an 88 GiB pool with "
         "the "
         "sequences.\n\n" +
         Adapters() +
         "\nTwelve such adapters, nine of ten requests on the first one, and a pool for two or "
         "three of them beside the sequences:\n\n" +
         HotAdapter();
}

}  // namespace lorad::sim
