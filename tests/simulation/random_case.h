// RandomCase: a whole simulation drawn from a seed: machine, pool, policy, adapters, and a workload
// of some streams in which things go wrong. What a single hand-made case leaves out, one of these
// has (swarm testing: each feature is off in many of them, so that they cannot hide each other).
#pragma once

#include <cstdint>
#include <string>

#include "tests/simulation/simulation.h"
#include "tests/simulation/workload.h"

namespace lorad::sim {

struct RandomCase {
  uint64_t seed = 0;
  SimulationOptions options;
  Workload workload;
  std::string description;  // one line
};

// About `requests` requests. Pure.
RandomCase MakeRandomCase(uint64_t seed, int requests);

// Simulates it; an error says the seed and how to run it again.
absl::StatusOr<SimulationResult> RunRandomCase(const RandomCase& random_case);

}  // namespace lorad::sim
