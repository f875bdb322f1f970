// Who has the better claim to its place when not all can keep theirs.
#pragma once

#include <vector>

#include "scheduler/step_draft.h"

namespace lorad {

// Its reader has been slow for so long that it is of no use to anybody that it keeps its place.
inline bool IsIdle(const RunningView& r, const PlannerView& view, const SchedulerPolicy& policy) {
  return r.paused_since <= view.now && view.now - r.paused_since >= policy.parking_delay;
}

// So often and no more.
inline bool MayBePreempted(const RunningView& r, const SchedulerPolicy& policy) {
  return r.preemptions < policy.max_preemptions;
}

// The running sequences, those who keep their places longest first. Who does nothing because its
// reader is slow goes first of all. Then go the least urgent, then who is on behalf of the tenant
// that has had most, then the youngest. Nobody is preempted again and again while there is
// anybody else.
std::vector<const RunningView*> ByClaim(const StepDraft& draft);

}  // namespace lorad
