// CheckPlan: whether a plan keeps what the planner promises, found out from the view alone and in
// other ways than the planner's own. Numbers are those of the scheduler's research notes:
//   I1  the budgets of a step: tokens, chunks, places, loads, distinct adapters' bytes, pages; and
//       only those run who may, each once, with the pages that their tokens need
//   I4  if there is somebody and no reader is slow, the plan does something or a load is under way
//   I6  behind a reserved request that was overtaken max_backfills times nobody is admitted; a
//       pinned one has its adapter loaded or pages are reserved, and no new adapter joins before
//       it; who is overtaken is counted
//   I8  no tokens and places stay idle while somebody could use them:
//       - a decoding sequence that needs no page runs, a prompt gets its whole chunk
//       - a request whose adapter is there is admitted if there are places and tokens for it, pages
//         for everybody's whole output beside it, and its adapter may join. Except: the step
//         preempts; somebody before it has pages reserved, is pinned or (without backfill) waits;
//         the places that are left are kept from its tenant
//   I9  without need nobody is preempted; who was preempted max_preemptions times, only
//       together with everybody who was not; and who has less of a claim goes first. Who gives
//       way is less urgent than somebody who waits, or its reader is slow
#pragma once

#include "absl/status/status.h"
#include "scheduler/planner_view.h"
#include "scheduler/policy.h"
#include "scheduler/step_plan.h"

namespace lorad {

// Internal error naming the invariant. Asks the facts of the view, so before the plan is carried
// out.
absl::Status CheckPlan(const PlannerView& view, const SchedulerPolicy& policy,
                       const StepPlan& plan);

}  // namespace lorad
