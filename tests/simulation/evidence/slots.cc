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

// A, B, A, A, A ...: the pool holds three adapters, one of six is wanted all the time.
std::string HotAdapter() {
  SimulationOptions options = Machine();
  options.server.ranks = {64};
  options.server.pages = 3 * options.server.cost.AdapterPages(64) + 700;
  const auto requests = Requests("hot", {.rate = 8,
                                         .duration_s = 300,
                                         .adapters = 6,
                                         .input = {8, 256},
                                         .output = {8, 256},
                                         .tenants = 1});
  std::string text =
      TableHead({"", "first token, p50 s", "p99 s", "longest s", "longest over p50", "loads"});
  for (const bool fcfs : {true, false}) {
    const Summary s = Measure(fcfs ? WithFcfs(options) : options, requests).summary;
    text +=
        TableRow({fcfs ? "FCFS" : "all rules", fmt::format("{:.3f}", s.ttft_s.p50),
                  fmt::format("{:.2f}", s.ttft_s.p99), fmt::format("{:.2f}", s.ttft_s.max),
                  fmt::format("{:.0f}", s.ttft_s.max / s.ttft_s.p50), fmt::format("{}", s.loads)});
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
         "\nA pool of three such adapters and little more, six adapters, nine of ten requests on "
         "the first one:\n\n" +
         HotAdapter();
}

}  // namespace lorad::sim
