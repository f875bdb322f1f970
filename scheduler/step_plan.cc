#include "scheduler/step_plan.h"

namespace lorad {

void StepPlan::Clear() {
  preempt.clear();
  admit.clear();
  load.clear();
  run.clear();
  refuse.clear();
}

}  // namespace lorad
