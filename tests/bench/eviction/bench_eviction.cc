// bench_eviction [CASE]: what a policy of eviction costs. Prints, for each case whose name contains
// CASE, the work that an endless pool would not have done, and a table of it relative to lorad's.
#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/bench/eviction/replay.h"
#include "tests/bench/eviction/trace.h"

namespace lorad::bench {
namespace {

constexpr Policy kPolicies[] = {
    {.name = "one queue"},  // lorad's; the others are relative to it
    {.name = "one LRU", .lru = true},
    {.name = "10/90 LRU", .lru = true, .adapter_share = 0.1},
    {.name = "30/70 LRU", .lru = true, .adapter_share = 0.3},
    {.name = "50/50 LRU", .lru = true, .adapter_share = 0.5},
    {.name = "S-LoRA", .lru = true, .keep_adapters = false, .keep_prefixes = false},
    {.name = "S-LoRA + prefix LRU", .lru = true, .keep_adapters = false},
};
// A request that waits longer for room on average: the policy cannot carry the load.
constexpr double kTooLongS = 10;

struct Case {
  std::string name;
  Machine machine;
  uint32_t pages;
  std::function<std::vector<TracedRequest>()> trace;
};

// What a machine is given to do: S-LoRA's lengths and rates, for less time on the slow one.
struct Load {
  const Machine& machine;
  double rate;
  int adapters;
  uint32_t tight, loose;  // pages
  Range output;
};

TraceOptions SLora(const Load& load, double alpha) {
  return {.arrivals = {.adapters = load.adapters,
                       .alpha = alpha,
                       .rate = load.rate,
                       .duration_s = 600,
                       .input = {8, 512},
                       .output = load.output}};
}

TraceOptions Mixed(const Load& load, double alpha) {
  TraceOptions options = SLora(load, alpha);
  options.arrivals.rate = load.rate / 2;
  options.arrivals.seed = 7;
  options.system_tokens = 400;
  options.conversations = 0.25;
  options.scans = 0.05;
  return options;
}

TraceOptions LongConversations(const Load& load) {
  TraceOptions options = SLora(load, 1);
  options.arrivals.adapters = load.adapters / 20;
  options.arrivals.rate = load.rate / 4;
  options.arrivals.duration_s = 300;
  options.system_tokens = 400;
  options.conversations = 0.8;
  options.more_turns = 0.85;
  return options;
}

TraceOptions ShortPrompts(const Load& load) {
  TraceOptions options = SLora(load, 1);
  options.arrivals.duration_s = 300;
  options.arrivals.input = options.arrivals.output = {8, 128};
  return options;
}

void AddCases(const Load& load, std::vector<Case>* cases) {
  const double step_s = load.machine.step_s;
  for (const bool tight : {true, false}) {
    const auto add = [&](std::string_view workload,
                         std::function<std::vector<TracedRequest>()> trace) {
      cases->push_back(
          {.name = fmt::format("{} {}: {}", load.machine.name, tight ? "tight" : "loose", workload),
           .machine = load.machine,
           .pages = tight ? load.tight : load.loose,
           .trace = std::move(trace)});
    };
    for (const double alpha : {0.1, 0.3, 1.0}) {
      add(fmt::format("S-LoRA {}", alpha), [=] { return MakeTrace(SLora(load, alpha), step_s); });
    }
    for (const double alpha : {0.1, 0.3, 1.0}) {
      add(fmt::format("mixed {}", alpha), [=] { return MakeTrace(Mixed(load, alpha), step_s); });
    }
    add("S-LoRA, then mixed 0.3",
        [=] { return Shift(SLora(load, 0.3), Mixed(load, 0.3), step_s); });
    add("many adapters, then long talks",
        [=] { return Shift(ShortPrompts(load), LongConversations(load), step_s); });
  }
}

struct Cell {
  double ratio = 0;
  bool too_long = false;
};

std::vector<Cell> Run(const Case& c) {
  const std::vector<TracedRequest> trace = c.trace();
  const Result endless =
      Replay(trace, c.machine, 4'000'000, {.name = "an endless pool", .lru = true});
  fmt::print(
      "{}\n  {} requests, {} pages; an endless pool finds {:.3f} of the adapters, {:.3f} of "
      "the tokens\n",
      c.name, trace.size(), c.pages, static_cast<double>(endless.adapter_hits) / endless.requests,
      static_cast<double>(endless.hit_tokens) / endless.prompt_tokens);
  std::vector<Cell> cells;
  double ours = 0;
  for (const Policy& policy : kPolicies) {
    const Result r = Replay(trace, c.machine, c.pages, policy);
    const double lost_s = r.busy_s() - endless.busy_s();
    if (cells.empty()) ours = lost_s;
    cells.push_back({.ratio = lost_s / ours, .too_long = r.wait_s / r.requests > kTooLongS});
    fmt::print(
        "  {:<20} adapters {:.3f}, tokens {:.3f}; lost {:8.2f} s to reloads, {:8.2f} s to "
        "recomputation, {:8.2f} s in all, x {:5.2f}; waits {:.1f} s\n",
        policy.name, static_cast<double>(r.adapter_hits) / r.requests,
        static_cast<double>(r.hit_tokens) / r.prompt_tokens, r.load_s - endless.load_s,
        r.prefill_s - endless.prefill_s, lost_s, lost_s / ours, r.wait_s / r.requests);
  }
  return cells;
}

void PrintTable(const std::vector<std::string>& names, const std::vector<std::vector<Cell>>& rows) {
  fmt::print("\n| lost seconds over lorad's |");
  for (const Policy& policy : kPolicies) fmt::print(" {} |", policy.name);
  fmt::print("\n|---|");
  for (size_t i = 0; i < std::size(kPolicies); ++i) fmt::print("---|");
  for (size_t i = 0; i < rows.size(); ++i) {
    fmt::print("\n| {} |", names[i]);
    for (const Cell& cell : rows[i]) {
      fmt::print(" {:.2f}{} |", cell.ratio, cell.too_long ? " (waits)" : "");
    }
  }
  fmt::print("\n| geometric mean |");
  for (size_t policy = 0; policy < std::size(kPolicies); ++policy) {
    double sum = 0;
    for (const std::vector<Cell>& row : rows) sum += std::log(row[policy].ratio);
    fmt::print(" {:.2f} |", std::exp(sum / static_cast<double>(rows.size())));
  }
  fmt::print("\n");
}

int Main(std::string_view wanted) {
  std::vector<Case> cases;
  AddCases({.machine = kH100,
            .rate = 8,
            .adapters = 400,
            .tight = 9000,
            .loose = 24000,
            .output = {8, 512}},
           &cases);
  AddCases({.machine = kCpu,
            .rate = 2,
            .adapters = 100,
            .tight = 1500,
            .loose = 5000,
            .output = {8, 256}},
           &cases);
  std::vector<std::string> names;
  std::vector<std::vector<Cell>> rows;
  for (const Case& c : cases) {
    if (c.name.find(wanted) == std::string::npos) continue;
    rows.push_back(Run(c));
    names.push_back(c.name);
  }
  if (rows.empty()) {
    fmt::print(stderr, "bench_eviction: no case has \"{}\" in its name\n", wanted);
    return 1;
  }
  PrintTable(names, rows);
  return 0;
}

}  // namespace
}  // namespace lorad::bench

int main(int argc, char** argv) { return lorad::bench::Main(argc > 1 ? argv[1] : ""); }
