// Rules 3 to 8 of the planner: who gets the tokens that decode leaves, who is let in, and which
// adapters are loaded for whom.
#pragma once

#include "scheduler/step_draft.h"

namespace lorad {

void PlanPrompts(StepDraft* draft);

}  // namespace lorad
