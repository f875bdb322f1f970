#include "scheduler/planner.h"

#include "scheduler/admission.h"
#include "scheduler/decode.h"

namespace lorad {

void PlanStep(const PlannerView& view, const SchedulerPolicy& policy, StepPlan* plan) {
  plan->Clear();
  StepDraft draft(view, policy, plan);
  PlanDecode(&draft);
  PlanPrompts(&draft);
}

}  // namespace lorad
