// One tenant sends ten times what each of three others does.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "tests/simulation/evidence/evidence.h"

namespace lorad::sim {
namespace {

constexpr double kSeconds = 120;

// The others' first tokens, over those that they have with nobody else there.
struct Latency {
  double p50 = 0, p99 = 0;
};
Latency OthersOf(const Summary& s) {
  Latency worst;
  for (size_t t = 1; t < s.tenants.size(); ++t) {
    worst.p50 = std::max(worst.p50, s.tenants[t].ttft_s.p50);
    worst.p99 = std::max(worst.p99, s.tenants[t].ttft_s.p99);
  }
  return worst;
}

std::vector<SimRequest> WithoutTheFlood(std::vector<SimRequest> requests) {
  std::erase_if(requests, [](const SimRequest& r) { return r.tenant == 0; });
  return requests;
}

// The others ask for less than their share: they should not notice the flood.
std::string BelowTheirShare() {
  const auto requests = Requests("flood", {.rate = 65, .duration_s = kSeconds, .adapters = 40});
  const SimulationOptions machine = LargeSteps(Machine());
  const Latency alone = OthersOf(Measure(machine, WithoutTheFlood(requests)).summary);
  std::string text = TableHead({"", "others' first token, p50 ms", "p99 ms", "over idle",
                                "flooding tenant, p50 s", "output tokens/s"});
  text += TableRow({"others alone", fmt::format("{:.0f}", 1e3 * alone.p50),
                    fmt::format("{:.0f}", 1e3 * alone.p99), "1", "", ""});
  const std::pair<const char*, SimulationOptions> rows[] = {
      {"flooded, FCFS", WithFcfs(machine)},
      {"flooded, all rules", machine},
      {"and an objective of 20 ms between tokens", WithGap(machine, 0.020)},
      {"and an objective of 15 ms between tokens", WithGap(machine, 0.015)}};
  for (const auto& [name, options] : rows) {
    const Summary s = Measure(options, requests).summary;
    const Latency others = OthersOf(s);
    text += TableRow({name, fmt::format("{:.0f}", 1e3 * others.p50),
                      fmt::format("{:.0f}", 1e3 * others.p99),
                      fmt::format("{:.1f}", others.p99 / alone.p99),
                      fmt::format("{:.1f}", s.tenants[0].ttft_s.p50),
                      fmt::format("{:.0f}", s.output_tokens_per_s)});
  }
  return text;
}

Plot ShareOverTime(const SimulationResult& result, const char* title) {
  Plot plot{
      .title = title, .x_label = "seconds", .y_label = "% of the tokens served", .curves = {}};
  const auto& service = result.measurements.service();
  constexpr size_t kWindows = 5;  // seconds in a point
  for (size_t t = 0; t < service[0].size(); ++t) {
    Curve curve{.name = t == 0 ? "flooding" : fmt::format("other {}", t), .points = {}};
    for (size_t w = 0; w + kWindows <= static_cast<size_t>(kSeconds); w += kWindows) {
      double own = 0, all = 0;
      for (size_t i = w; i < std::min(w + kWindows, service.size()); ++i) {
        for (size_t u = 0; u < service[i].size(); ++u) {
          all += static_cast<double>(service[i][u]);
          own += u == t ? static_cast<double>(service[i][u]) : 0;
        }
      }
      if (all > 0) curve.points.emplace_back(static_cast<double>(w), 100 * own / all);
    }
    plot.curves.push_back(std::move(curve));
  }
  return plot;
}

// All ask for more than their share: each should have a quarter.
std::string AboveTheirShare(const Pictures& pictures) {
  const auto requests = Requests("flood", {.rate = 195, .duration_s = kSeconds, .adapters = 40});
  std::string text = TableHead({"", "flooding tenant, % of tokens", "others, % each, least", "most",
                                "most that two tenants' service drifted apart, tokens"});
  std::string shown;
  for (const bool fcfs : {true, false}) {
    const Measured m = Measure(fcfs ? WithFcfs(Machine()) : Machine(), requests);
    double all = 0, least = 1, most = 0;
    for (const Summary::Tenant& t : m.summary.tenants) all += t.tokens;
    for (size_t t = 1; t < m.summary.tenants.size(); ++t) {
      least = std::min(least, m.summary.tenants[t].tokens / all);
      most = std::max(most, m.summary.tenants[t].tokens / all);
    }
    text += TableRow({fcfs ? "FCFS" : "all rules",
                      fmt::format("{:.1f}", 100 * m.summary.tenants[0].tokens / all),
                      fmt::format("{:.1f}", 100 * least), fmt::format("{:.1f}", 100 * most),
                      fmt::format("{:.0f}", m.summary.unfairness)});
    shown += pictures.Show(
        fcfs ? "flood-fcfs" : "flood",
        ShareOverTime(m.result, fcfs ? "A flooding tenant, FCFS" : "A flooding tenant, all rules"));
  }
  return text + shown;
}

}  // namespace

std::string FairnessSection(const Pictures& pictures) {
  return "\n## A flooding tenant\n"
         "Four tenants on ten adapters each; the first sends ten times what each other one does. "
         "First at 65 requests a second in all, 1.4 times what the machine can do: the\n"
         "others ask for 5 a second each, less than their share. Steps of up to 1024 tokens, "
         "chunks of "
         "512. *Over idle*: their p99 over that without the flood.\n\n" +
         BelowTheirShare() +
         "\nThen at 195 a second: the others ask for 15 each, more than their quarter, too.\n\n" +
         AboveTheirShare(pictures);
}

}  // namespace lorad::sim
