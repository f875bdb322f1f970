// What is left of the work done in time when more is asked than can be done.
#include <fmt/format.h>

#include <algorithm>

#include "tests/simulation/engine_objective.h"
#include "tests/simulation/evidence/evidence.h"

namespace lorad::sim {
namespace {

constexpr Objective kObjective{.ttft_s = 2, .gap_s = 0.05};
constexpr double kRates[] = {20, 30, 40, 45, 50, 60, 80, 90, 120};
constexpr double kKnee = 45;

struct Series {
  Curve goodput;
  std::vector<double> accepted;  // share of those let in that were served in time
};

Series GoodputOverLoad(const char* name, const SimulationOptions& options) {
  Series series{.goodput = {.name = name, .points = {}}, .accepted = {}};
  for (const double rate : kRates) {
    const auto requests = Requests("slora", {.rate = rate, .duration_s = 120, .deadline_s = 20});
    const Summary s = Measure(options, requests, kObjective).summary;
    series.goodput.points.emplace_back(rate, s.goodput);
    series.accepted.push_back(s.accepted_attainment);
  }
  return series;
}

}  // namespace

std::string OverloadSection(const Pictures& pictures) {
  Plot plot{.title = "Requests in time: first token in 2 s, others 50 ms apart, deadline 20 s",
            .x_label = "requests a second that come",
            .y_label = "requests a second in time",
            .curves = {}};
  SimulationOptions refusing = Machine();
  RefuseLate(kObjective, &refusing.server.engine);
  const Series fcfs = GoodputOverLoad("FCFS", WithFcfs(Machine()));
  const Series all = GoodputOverLoad("all rules", refusing);
  plot.curves = {fcfs.goodput, all.goodput};
  std::string text = TableHead(
      {"requests/s", "FCFS: in time, /s", "all rules: in time, /s", "of those let in, %"});
  for (size_t i = 0; i < std::size(kRates); ++i) {
    text += TableRow({fmt::format("{}", kRates[i]),
                      fmt::format("{:.1f}", fcfs.goodput.points[i].second),
                      fmt::format("{:.1f}", all.goodput.points[i].second),
                      fmt::format("{:.1f}", 100 * all.accepted[i])});
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
             "\n## Overload\n100 adapters, S-LoRA's lengths, one tenant; an objective of 2 s for "
             "the first token whose class says refuse. At {} a second, twice the "
             "knee, {}.\nFCFS knows no objective and refuses only who cannot end by the "
             "deadline.\n\n",
             2 * kKnee, ratios) +
         text + pictures.Show("overload", plot);
}

}  // namespace lorad::sim
