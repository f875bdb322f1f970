#include "tests/simulation/capacity_plan.h"

#include <utility>

namespace lorad::sim {

absl::StatusOr<std::vector<CapacityRow>> PlanCapacity(
    const CapacityQuestion& question, const std::vector<SimRequest>& requests,
    const std::vector<double>& weights, const std::function<void(const CapacityRow&)>& done) {
  std::vector<CapacityRow> rows;
  for (const uint32_t pages : question.pages) {
    for (int servers = 1; servers <= question.most_servers; ++servers) {
      SimulationOptions options = question.options;
      options.server.pages = pages;
      options.servers = servers;
      auto result = Simulate(options, requests, weights);
      if (!result.ok()) return result.status();
      CapacityRow row{.pages = pages,
                      .servers = servers,
                      .summary = Summarize(*result, requests, question.objective)};
      row.enough = row.summary.attainment >= question.share;
      if (done) done(row);
      rows.push_back(std::move(row));
      if (rows.back().enough) break;
    }
  }
  return rows;
}

}  // namespace lorad::sim
