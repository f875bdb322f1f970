// What is left of the work done in time when more is asked than can be done.
#include <fmt/format.h>

#include <algorithm>

#include "tests/simulation/evidence/evidence.h"

namespace lorad::sim {
namespace {

constexpr Objective kObjective{.ttft_s = 2, .gap_s = 0.05};
constexpr double kRates[] = {20, 30, 40, 45, 50, 60, 80, 90, 120};
constexpr double kKnee = 45;

Curve GoodputOverLoad(const char* name, const SimulationOptions& options) {
  Curve curve{.name = name, .points = {}};
  for (const double rate : kRates) {
    // What the clients expect they say: a deadline in which a request that is served at once ends.
    const auto requests = Requests("slora", {.rate = rate, .duration_s = 120, .deadline_s = 20});
    curve.points.emplace_back(rate, Measure(options, requests, kObjective).summary.goodput);
  }
  return curve;
}

}  // namespace

std::string OverloadSection(const Pictures& pictures) {
  Plot plot{.title = "Requests in time: first token in 2 s, others 50 ms apart, deadline 20 s",
            .x_label = "requests a second that come",
            .y_label = "requests a second in time",
            .curves = {}};
  plot.curves.push_back(GoodputOverLoad("FCFS", WithFcfs(Machine())));
  plot.curves.push_back(GoodputOverLoad("all rules", Machine()));
  std::string text = TableHead({"requests/s", "FCFS: in time, /s", "all rules: in time, /s"});
  for (size_t i = 0; i < std::size(kRates); ++i) {
    text += TableRow({fmt::format("{}", kRates[i]),
                      fmt::format("{:.1f}", plot.curves[0].points[i].second),
                      fmt::format("{:.1f}", plot.curves[1].points[i].second)});
  }
  const auto peak = [](const Curve& curve) {
    double most = 0;
    for (const auto& [rate, goodput] : curve.points) most = std::max(most, goodput);
    return most;
  };
  const auto at = [](const Curve& curve, double rate) {
    return std::find_if(curve.points.begin(), curve.points.end(),
                        [rate](const auto& point) { return point.first == rate; })
        ->second;
  };
  std::string ratios;
  for (const Curve& curve : plot.curves) {
    ratios += fmt::format("{}{}: {:.0f} % of its peak", ratios.empty() ? "" : "; ", curve.name,
                          100 * at(curve, 2 * kKnee) / peak(curve));
  }
  return fmt::format(
             "\n## Overload\n100 adapters, S-LoRA's lengths, one tenant. At {} a second, twice the "
             "knee, {}.\n\n",
             2 * kKnee, ratios) +
         text + pictures.Show("overload", plot);
}

}  // namespace lorad::sim
