// Simulate: servers behind a router, in virtual time, from the first request to the end of the last
// one. A discrete-event simulation: always what comes next is done, a request that arrives, a
// client that leaves, or the step of the server that is furthest behind. One thread; equal options
// and requests give equal runs, down to every token and nanosecond (SimulationResult::hash).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/simulation/measurements.h"
#include "tests/simulation/routing.h"
#include "tests/simulation/simulated_server.h"
#include "tests/simulation/workload.h"

namespace lorad::sim {

struct SimulationOptions {
  ServerOptions server;
  int servers = 1;
  Routing routing = Routing::kAffine;
  double window_s = 1;  // of the measured service over time
  // No more arrivals after so many steps of all servers together; what has come is served.
  uint64_t max_steps = ~uint64_t{0};
};

struct SimulationResult {
  Measurements measurements;
  size_t offered = 0;     // requests that came
  double arrivals_s = 0;  // when the last did
  double end_s = 0;       // when the last one ended
  uint64_t steps = 0;
  std::vector<SimulatedServer::Totals> servers;
  std::vector<SimulatedLoads::Stats> loads;
  double busy_s = 0;      // of all devices
  double unfairness = 0;  // FairnessMeter, the worst server's
  uint64_t hash = 0;
};

// `requests` by start. Internal: an invariant was broken; the message says which, where and when.
absl::StatusOr<SimulationResult> Simulate(const SimulationOptions& options,
                                          const std::vector<SimRequest>& requests,
                                          std::vector<double> weights = {});

}  // namespace lorad::sim
