// Setup: what the commands of lorad-sim have in common: flags that describe a workload, servers and
// an objective, and what they mean for the simulator.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/simulation/simulation.h"
#include "tests/simulation/workload.h"

namespace lorad::sim {

// As the flags say.
struct Setup {
  std::string workload = "slora";
  WorkloadKnobs knobs;
  std::string input = "8:512", output = "8:512";
  std::vector<std::string> replay;  // recordings; then the above is not used
  double times = 1;                 // as fast as recorded

  std::string cost = "h100";
  int servers = 1;
  std::string routing = "affine";
  uint64_t pool_bytes = 0;        // 0: as the cost model says
  uint64_t host_cache_bytes = 0;  // likewise
  std::vector<int> ranks = {8, 16, 32, 64};
  bool warm = false;
  bool prefix_cache = true;
  SchedulerPolicy policy;
  std::vector<std::string> without;  // rules that are switched off
  int max_waiting = 1024;

  Objective objective;
  bool refuse = false;  // who cannot keep it
  bool check = true;
};

void AddWorkloadFlags(CLI::App* app, Setup* setup);
void AddServerFlags(CLI::App* app, Setup* setup);
void AddObjectiveFlags(CLI::App* app, Setup* setup);

// What is to be simulated. InvalidArgument or NotFound naming the flag.
struct Prepared {
  SimulationOptions options;
  std::vector<SimRequest> requests;
  std::vector<double> weights;
  std::string description;  // one line
  std::optional<SimulationResult> as_recorded;
};
absl::StatusOr<Prepared> Prepare(const Setup& setup);

absl::Status WriteFile(const std::string& path, const std::string& text);

}  // namespace lorad::sim
