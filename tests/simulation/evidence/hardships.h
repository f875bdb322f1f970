// Hardships: workloads that are hard in one way each, so that a rule of the scheduler shows what it
// is there for, and the figures that show it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/simulation/evidence/evidence.h"

namespace lorad::sim {

struct Figure {
  std::string name;  // less is better
  std::function<double(const Measured&, const std::vector<SimRequest>&)> of;
};

struct Hardship {
  std::string name;
  std::string explanation;  // for people, one line
  SimulationOptions options;
  std::vector<SimRequest> requests;
  std::vector<Figure> figures;
};

std::vector<Hardship> Hardships();

}  // namespace lorad::sim
