// What the simulator's objective is to an engine: of all classes alike.
#pragma once

#include "server/engine.h"
#include "tests/simulation/measurements.h"

namespace lorad::sim {

// Steps are tuned to its gap, as by an --objective that says itl.
inline void SetObjective(const Objective& objective, EngineOptions* engine) {
  engine->policy.objectives.fill(
      {.first_token = For(objective.ttft_s),
       .inter_token = objective.gap_s == kNever ? Duration::zero() : For(objective.gap_s),
       .refuse = false});
}

// And who would miss its first token is refused at once.
inline void RefuseLate(const Objective& objective, EngineOptions* engine) {
  SetObjective(objective, engine);
  for (lorad::Objective& o : engine->policy.objectives) o.refuse = true;
}

}  // namespace lorad::sim
