// Summary: the figures of one simulation, and how they are written. Pure.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "tests/simulation/simulation.h"

namespace lorad::sim {

struct Spread {
  double mean = 0, p50 = 0, p90 = 0, p99 = 0, max = 0;
};

struct Summary {
  size_t offered = 0;
  std::array<size_t, kOutcomes> outcomes{};  // by Outcome
  double seconds = 0;                        // in which requests came
  double end_s = 0;                          // when the last one ended
  // In the seconds in which requests came; what is computed after is left out.
  double requests_per_s = 0, output_tokens_per_s = 0;
  double goodput = 0;              // requests that kept the objective, for each of these seconds
  double attainment = 0;           // and their share of all whose clients stayed
  double accepted_attainment = 0;  // and of those of them that were not refused
  Spread ttft_s;                   // of requests with a token
  Spread gap_s;                    // between two tokens of a request
  Spread request_gap_s;            // the mean of each request\'s gaps
  Spread request_s;                // of finished ones
  double device_busy = 0;          // share of the time until the end, mean over servers
  double batch = 0;                // sequences in a step, mean
  double distinct = 0;             // adapters in a step, mean
  double found_tokens = 0;         // share of prompt tokens that the prefix cache had
  uint64_t steps = 0, loads = 0, host_hits = 0, evictions = 0, preemptions = 0;
  double unfairness = 0;   // FairnessMeter
  int most_overtaken = 0;  // OvertakeCount
  struct Tenant {
    size_t offered = 0, finished = 0;
    double tokens = 0;  // served while requests came, prompt and output
    double attainment = 0;
    Spread ttft_s;
  };
  std::vector<Tenant> tenants;

  size_t count(Outcome outcome) const { return outcomes[static_cast<size_t>(outcome)]; }
};

// Sorts `samples`; percentiles by nearest rank.
Spread SpreadOf(std::vector<float>* samples);

bool Keeps(const RequestRecord& record, const Objective& objective);

Summary Summarize(const SimulationResult& result, const std::vector<SimRequest>& requests,
                  const Objective& objective);

std::string ToText(const Summary& summary, const Objective& objective);
std::string ToJson(const Summary& summary);

}  // namespace lorad::sim
