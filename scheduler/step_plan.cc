#include "scheduler/step_plan.h"

namespace lorad {

void StepPlan::Clear() {
  budget = {};
  preempt.clear();
  give_way.clear();
  admit.clear();
  load.clear();
  run.clear();
  refuse.clear();
  overtaken.clear();
  reserved_for = 0;
  draining = 0;
  keep.clear();
  pinned = 0;
  spare_pages = 0;
}

}  // namespace lorad
