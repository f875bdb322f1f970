// PlanCapacity: how many servers, with what pool, a workload needs. For each pool size it simulates
// one server, two, three, ... until the objective is kept for the wanted share of requests.
#pragma once

#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/simulation/simulation.h"
#include "tests/simulation/summary.h"

namespace lorad::sim {

struct CapacityQuestion {
  SimulationOptions options;    // `servers` and `pages` are what is asked for
  std::vector<uint32_t> pages;  // of one server's pool
  int most_servers = 16;
  Objective objective;
  double share = 0.99;  // of requests that keep it
};

struct CapacityRow {
  uint32_t pages = 0;
  int servers = 0;
  bool enough = false;
  Summary summary;
};

// In the order of simulation. `done` is told each row as it comes; may be null.
absl::StatusOr<std::vector<CapacityRow>> PlanCapacity(
    const CapacityQuestion& question, const std::vector<SimRequest>& requests,
    const std::vector<double>& weights, const std::function<void(const CapacityRow&)>& done);

}  // namespace lorad::sim
