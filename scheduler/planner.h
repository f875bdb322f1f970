// Planner: decides what the next step runs. A pure function of a view of the serving state: no
// clock, no I/O, no memory of its own, so the same code runs in the daemon, in unit tests and in
// simulation. It decides; Engine::Commit alone changes the books.
//
// The rules, in this order:
//   1 Decode first. Every running sequence that has one token left to compute gets it; decode never
//   waits for prefill.
//   2 When decode needs a page and none can be had (free, held by an idle adapter, or kept only for
//   later prompts), the youngest running sequence is preempted: its pages may be evicted, it
//   returns to the queue, and goes on later from what is left of them.
//   3 Prompts get the tokens that are left, each at most a chunk, in the order of the policy: by
//   class, within it by the counters of tenants, then by arrival (scheduler/waiting_queue.h).
//   Whether a prompt runs already or waits makes no difference to its turn.
//   4 The most urgent class leaves a share of tokens and sequences to the others.
//   5 Nothing is admitted in a step that preempted (no thrash).
//   6 A waiting request is admitted when its turn comes if there is a place and there are pages for
//   its whole prompt. What the prefix cache has of it is neither computed nor paid for again. A
//   request whose adapter is not resident is passed over, and its adapter's load is started: a cold
//   adapter delays nobody else.
//   7 A request (or adapter load) for which the pages are lacking stops admission behind it, so it
//   is not passed by for ever. If nothing runs or loads that could give pages back, it can never
//   be had and is refused.
#pragma once

#include "scheduler/planner_view.h"
#include "scheduler/policy.h"
#include "scheduler/step_draft.h"
#include "scheduler/step_plan.h"

namespace lorad {

// Fills `plan` (reused to spare allocations).  REQUIRES: the policy's numbers are positive; all
// pointers of the view are set.
void PlanStep(const PlannerView& view, const SchedulerPolicy& policy, StepPlan* plan);

}  // namespace lorad
