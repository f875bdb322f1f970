// Results as text for people and as JSON for files.
#pragma once

#include <string>
#include <vector>

#include "tests/bench/lorad_bench/load.h"

namespace lorad::bench {

std::string ToText(const LoadResult& result);

// One workload of a scenario and what its rounds gave.
struct ScenarioRow {
  std::string name;
  std::vector<LoadResult> rounds;

  const LoadResult& Best()
      const;  // the round with the most output tokens a second.  REQUIRES: a round
};

// Ratios of output tokens a second to the first row's: best against best, and the median over the
// rounds of the ratio within a round (which a slow spell of a shared machine disturbs less).
struct Ratio {
  double best = 0;
  double median = 0;
};
Ratio RatioTo(const ScenarioRow& base, const ScenarioRow& row);

std::string ToText(const std::vector<ScenarioRow>& rows);

// What a JSON report says besides its results.
struct ReportHeader {
  std::string mode;     // "open", "closed", "scenario"
  std::string command;  // the command line
  v1::Model model;
};
std::string ToJson(const ReportHeader& header, const LoadOptions& options,
                   const LoadResult& result);
std::string ToJson(const ReportHeader& header, const LoadOptions& options,
                   const std::vector<ScenarioRow>& rows);

}  // namespace lorad::bench
