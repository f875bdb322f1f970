#include "scheduler/planner.h"

#include "scheduler/admission.h"
#include "scheduler/decode.h"

namespace lorad {

void PlanStep(const PlannerView& view, const SchedulerPolicy& policy, StepPlan* plan) {
  plan->Clear();
  StepDraft draft(view, policy, plan);
  plan->budget = draft.budget;
  PlanDecode(&draft);
  draft.LeaveToPrompts();
  PlanPrompts(&draft);
}

}  // namespace lorad
