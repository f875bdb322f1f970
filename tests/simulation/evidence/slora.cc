// S-LoRA's synthetic workload: from 5 adapters to 2,000, and attainment against load.
#include <fmt/format.h>

#include "tests/simulation/evidence/evidence.h"

namespace lorad::sim {
namespace {

constexpr double kRate = 24;  // requests a second
constexpr double kSeconds = 300;

std::string Adapters() {
  std::string text =
      TableHead({"adapters", "requests/s", "over 5", "first token, mean s", "p99 s",
                 "between tokens, p50 ms", "6 s kept, %", "adapters in a step", "loads"});
  double base = 0;
  for (const int adapters : {5, 100, 1000, 2000}) {
    const auto requests =
        Requests("slora", {.rate = kRate, .duration_s = kSeconds, .adapters = adapters});
    const Summary s = Measure(Machine(), requests).summary;
    if (base == 0) base = s.requests_per_s;
    text += TableRow({fmt::format("{}", adapters), fmt::format("{:.2f}", s.requests_per_s),
                      fmt::format("{:.3f}", s.requests_per_s / base),
                      fmt::format("{:.3f}", s.ttft_s.mean), fmt::format("{:.3f}", s.ttft_s.p99),
                      fmt::format("{:.1f}", 1e3 * s.gap_s.p50),
                      fmt::format("{:.1f}", 100 * s.attainment), fmt::format("{:.0f}", s.distinct),
                      fmt::format("{}", s.loads)});
  }
  return text;
}

Plot AttainmentOverLoad() {
  Plot plot{.title = "S-LoRA's workload, alpha 1, cv 1: requests with a first token within 6 s",
            .x_label = "requests a second",
            .y_label = "%",
            .curves = {}};
  for (const int adapters : {5, 200, 2000}) {
    Curve curve{.name = fmt::format("{} adapters", adapters), .points = {}};
    for (const double rate : {10.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0}) {
      const auto requests =
          Requests("slora", {.rate = rate, .duration_s = 120, .adapters = adapters});
      curve.points.emplace_back(rate, 100 * Measure(Machine(), requests).summary.attainment);
    }
    plot.curves.push_back(std::move(curve));
  }
  return plot;
}

}  // namespace

std::string SLoraSection(const Pictures& pictures) {
  return fmt::format(
             "\n## S-LoRA's workload\n"
             "Uniform over the adapters (alpha 1), Gamma gaps with cv 1, prompts and outputs of 8 "
             "to "
             "511 tokens, ranks 8 to 64, {} requests a second for {} s. S-LoRA on an A100\n"
             "with a 7B model kept 0.90 of its throughput from 5 adapters to 2,000 (7.49 to 6.73 "
             "requests/s at 10 offered, its setting of the same ranks), and its first token\n"
             "went from 2.7 s to 10.7 s.\n\n",
             kRate, kSeconds) +
         Adapters() + pictures.Show("load", AttainmentOverLoad());
}

}  // namespace lorad::sim
