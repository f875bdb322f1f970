// RefuseLate: makes an engine refuse at once who would miss the first-token objective, whatever its
// class.
#pragma once

#include "server/engine.h"
#include "tests/simulation/measurements.h"

namespace lorad::sim {

inline void RefuseLate(const Objective& objective, EngineOptions* engine) {
  engine->objectives.fill(
      {.first_token = For(objective.ttft_s),
       .inter_token = objective.gap_s == kNever ? Duration::zero() : For(objective.gap_s),
       .refuse = true});
}

}  // namespace lorad::sim
