// simulation_evidence DIRECTORY PREFIX: writes pictures DIRECTORY/PREFIX-*.svg and prints the
// measured part of the page that shows them (docs/benchmarks/scheduler.sh).
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

#include "tests/simulation/engine_objective.h"
#include "tests/simulation/evidence/evidence.h"
#include "tests/simulation/policy_rules.h"

namespace lorad::sim {

SimulationOptions Machine() {
  SimulationOptions options;
  ServerOptions& server = options.server;
  server.cost = *FindCostModel("h100");
  server.cost.host_tier_bytes = uint64_t{512} << 30;
  server.warm = true;
  server.pages = server.cost.pages;
  server.engine.policy.max_adapter_loads = 4;
  server.engine.policy.reserve_pages = server.pages / 100;
  server.engine.max_waiting = 1000000;
  server.validate_every = 10007;
  return options;
}

SimulationOptions WithFcfs(SimulationOptions options) {
  SwitchOff("fcfs", &options.server.engine.policy);
  return options;
}

SimulationOptions LargeSteps(SimulationOptions options) {
  options.server.engine.policy.max_step_tokens = 1024;
  options.server.engine.policy.max_chunk_tokens = 512;
  return options;
}

SimulationOptions WithGap(SimulationOptions options, double gap_s) {
  SetObjective({.ttft_s = 3600, .gap_s = gap_s}, &options.server.engine);
  return options;
}

Measured Measure(const SimulationOptions& options, const std::vector<SimRequest>& requests,
                 const Objective& objective) {
  auto result = Simulate(options, requests);
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", std::string(result.status().message()).c_str());
    std::exit(2);
  }
  Summary summary = Summarize(*result, requests, objective);
  return {.result = *std::move(result), .summary = std::move(summary)};
}

std::vector<SimRequest> Requests(const char* workload, const WorkloadKnobs& knobs) {
  return *MakeRequests(*MakeWorkload(workload, knobs));
}

std::string TableRow(const std::vector<std::string>& cells) {
  std::string row = "|";
  for (const std::string& cell : cells) row += " " + cell + " |";
  return row + "\n";
}

std::string TableHead(const std::vector<std::string>& cells) {
  std::string line = "|";
  for (size_t i = 0; i < cells.size(); ++i) line += "---|";
  return TableRow(cells) + line + "\n";
}

std::string Pictures::Show(const char* name, const Plot& plot) const {
  const std::string file = fmt::format("{}-{}.svg", prefix_, name);
  std::FILE* out = std::fopen((directory_ + "/" + file).c_str(), "w");
  if (out == nullptr) {
    std::fprintf(stderr, "cannot write %s/%s\n", directory_.c_str(), file.c_str());
    std::exit(1);
  }
  std::fputs(ToSvg(plot).c_str(), out);
  std::fclose(out);
  return fmt::format("\n![{}]({})\n", plot.title, file);
}

}  // namespace lorad::sim

int main(int argc, char** argv) {
  using namespace lorad::sim;
  if (argc != 3) {
    std::fprintf(stderr, "usage: simulation_evidence DIRECTORY PREFIX\n");
    return 1;
  }
  const Pictures pictures(argv[1], argv[2]);
  for (const auto section :
       {SLoraSection, FairnessSection, SlotsSection, OverloadSection, RulesSection}) {
    std::fputs(section(pictures).c_str(), stdout);
    std::fflush(stdout);
  }
  return 0;
}
