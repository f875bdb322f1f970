// Each rule of the scheduler switched off, on workloads that are hard in different ways.
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "tests/simulation/evidence/evidence.h"
#include "tests/simulation/policy_rules.h"

namespace lorad::sim {
namespace {

struct Hardship {
  std::string name;
  std::string figure;  // what is shown; less is better
  SimulationOptions options;
  std::vector<SimRequest> requests;
  std::function<double(const Summary&, const std::vector<SimRequest>&, const SimulationResult&)>
      figure_of;
};

double WorstOther(const Summary& s) {
  double worst = 0;
  for (size_t t = 1; t < s.tenants.size(); ++t) worst = std::max(worst, s.tenants[t].ttft_s.p99);
  return worst;
}

// p99 of the first tokens of one class, seconds.
double OfClass(Priority priority, const std::vector<SimRequest>& requests,
               const SimulationResult& result) {
  std::vector<float> ttft_s;
  for (size_t i = 0; i < result.offered; ++i) {
    const RequestRecord& record = result.measurements.records()[i];
    if (requests[i].priority == priority && record.ttft_s >= 0) ttft_s.push_back(record.ttft_s);
  }
  return SpreadOf(&ttft_s).p99;
}

SimulationOptions Tight(uint32_t pages, std::vector<int> ranks = {8, 16, 32, 64}) {
  SimulationOptions options = Machine();
  options.server.ranks = std::move(ranks);
  options.server.pages = pages;
  options.server.engine.policy.reserve_pages = pages / 100;
  return options;
}

// Urgent requests alone are more than the machine can do.
std::vector<SimRequest> Crowded() {
  Workload workload;
  workload.streams = {{.arrivals = {.adapters = 100, .rate = 60, .duration_s = 120},
                       .priority = Priority::kInteractive},
                      {.arrivals = {.adapters = 100, .rate = 4, .duration_s = 120, .seed = 7},
                       .priority = Priority::kBatch}};
  return *MakeRequests(workload);
}

std::vector<Hardship> Hardships() {
  using Requests_ = const std::vector<SimRequest>&;
  using Result = const SimulationResult&;
  return {
      {"a flooding tenant", "others' first token, p99 s", Machine(),
       Requests("flood", {.rate = 65, .duration_s = 120, .adapters = 40}),
       [](const Summary& s, Requests_, Result) { return WorstOther(s); }},
      {"classes, overloaded", "interactive first token, p99 s", Machine(),
       Requests("priorities", {.rate = 65, .duration_s = 120}),
       [](const Summary&, Requests_ r, Result result) {
         return OfClass(Priority::kInteractive, r, result);
       }},
      {"classes, overloaded", "batch first token, p99 s", Machine(),
       Requests("priorities", {.rate = 65, .duration_s = 120}),
       [](const Summary&, Requests_ r, Result result) {
         return OfClass(Priority::kBatch, r, result);
       }},
      {"urgent ones alone overload", "batch first token, p99 s", Machine(), Crowded(),
       [](const Summary&, Requests_ r, Result result) {
         return OfClass(Priority::kBatch, r, result);
       }},
      {"a hot adapter, tight pool", "first token, mean s", Tight(600, {64}),
       Requests("hot", {.rate = 14,
                        .duration_s = 120,
                        .adapters = 12,
                        .input = {8, 256},
                        .output = {8, 256},
                        .tenants = 1}),
       [](const Summary& s, Requests_, Result) { return s.ttft_s.mean; }},
      {"2,000 adapters, a full machine", "first token, mean s", Machine(),
       Requests("slora", {.rate = 40, .duration_s = 120, .adapters = 2000}),
       [](const Summary& s, Requests_, Result) { return s.ttft_s.mean; }},
      {"outputs that outgrow the pool", "a request, mean s", Tight(4000),
       Requests("slora", {.rate = 12,
                          .duration_s = 120,
                          .adapters = 20,
                          .input = {8, 512},
                          .output = {256, 1024},
                          .slack = 1}),
       [](const Summary& s, Requests_, Result) { return s.request_s.mean; }},
      {"bursts", "first token, p99 s", Machine(),
       Requests("bursts", {.rate = 40, .duration_s = 120}),
       [](const Summary& s, Requests_, Result) { return s.ttft_s.p99; }},
  };
}

}  // namespace

std::string RulesSection(const Pictures&) {
  const std::vector<Hardship> hardships = Hardships();
  std::vector<std::string> head = {"workload", "figure", "all rules", "FCFS"};
  for (const PolicyRule& rule : PolicyRules()) head.push_back(fmt::format("no {}", rule.name));
  std::string text = TableHead(head);
  for (const Hardship& h : hardships) {
    const auto figure = [&](const SimulationOptions& options) {
      const Measured m = Measure(options, h.requests);
      return fmt::format("{:.3g}", h.figure_of(m.summary, h.requests, m.result));
    };
    std::vector<std::string> row = {h.name, h.figure, figure(h.options),
                                    figure(WithFcfs(h.options))};
    for (const PolicyRule& rule : PolicyRules()) {
      SimulationOptions options = h.options;
      rule.switch_off(&options.server.engine.policy);
      row.push_back(figure(options));
    }
    text += TableRow(row);
  }
  std::string rules;
  for (const PolicyRule& rule : PolicyRules()) {
    rules += fmt::format("{}*{}*: {}", rules.empty() ? "" : "; ", rule.name, rule.explanation);
  }
  return "\n## Each rule switched off\nSeconds; less is better. " + rules + ".\n\n" + text;
}

}  // namespace lorad::sim
