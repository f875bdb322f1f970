// The page docs/benchmarks/*-scheduler.md: what the scheduler's rules are worth, simulated. Each
// section is a function that simulates and returns its part of the page; pictures go to files.
#pragma once

#include <string>
#include <vector>

#include "tests/simulation/simulation.h"
#include "tests/simulation/summary.h"
#include "tests/simulation/svg_plot.h"
#include "tests/simulation/workload.h"

namespace lorad::sim {

// One H100 with Llama-3-8B, its adapters in host memory.
SimulationOptions Machine();
// As it is configured by default, or plain first come first served.
SimulationOptions WithFcfs(SimulationOptions options);

// With steps of up to 1024 tokens and chunks of 512.
SimulationOptions LargeSteps(SimulationOptions options);
// With an objective of so many seconds between tokens.
SimulationOptions WithGap(SimulationOptions options, double gap_s);

struct Measured {
  SimulationResult result;
  Summary summary;
};
// Ends the program if an invariant breaks: then there is nothing to report.
Measured Measure(const SimulationOptions& options, const std::vector<SimRequest>& requests,
                 const Objective& objective = {});
std::vector<SimRequest> Requests(const char* workload, const WorkloadKnobs& knobs);

// "| a | b |\n"
std::string TableRow(const std::vector<std::string>& cells);
// With the line below it.
std::string TableHead(const std::vector<std::string>& cells);

class Pictures {
 public:
  Pictures(std::string directory, std::string prefix)
      : directory_(std::move(directory)), prefix_(std::move(prefix)) {}
  // Writes the picture and returns the line of Markdown that shows it.
  std::string Show(const char* name, const Plot& plot) const;

 private:
  const std::string directory_, prefix_;
};

std::string SLoraSection(const Pictures& pictures);
std::string FairnessSection(const Pictures& pictures);
std::string SlotsSection(const Pictures& pictures);
std::string OverloadSection(const Pictures& pictures);
std::string RulesSection(const Pictures& pictures);

}  // namespace lorad::sim
