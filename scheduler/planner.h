// Planner: decides what the next step runs. A pure function of a view of the serving state: no
// clock, no I/O, no memory of its own, so the same code runs in the daemon, in unit tests and in
// simulation. It decides; Engine::Commit alone changes the books.
//
// The rules, in this order:
//   1 Decode first (decode.h). Every running sequence that has one token left to compute gets it;
//   decode never waits for prefill.
//   2 Where admission promised all sequences their pages (AdmissionMode::kNoEvict) a page is given
//   only while all can still come to their ends (safe_state.h), and nobody is preempted. Else, when
//   a page is needed and none can be had (free, held by an idle adapter, or kept only for later
//   prompts), who has the least claim is preempted: its pages may be evicted, it returns to the
//   queue, and goes on later from what is left of them.
//   3 Prompts get the tokens that are left, fewer where an objective between tokens asks for it
//   (step_budget.h), each at most a chunk, in the order of the policy: by class, within it by the
//   counters of tenants, then by arrival (waiting_queue.h, tenant_ledger.h, policy_order.h).
//   Whether a prompt runs already or waits makes no difference to its turn. 4 The most urgent class
//   leaves a share of tokens and sequences to the others, and tenants that run more than their
//   share leave the last places to those that run less. 5 Nothing is admitted in a step that
//   preempted (no thrash), nor in one in which somebody gives way: whoever is first in order and
//   lacks a place or pages takes those of less urgent classes, and of those whose readers are slow
//   (give_way.h), and is admitted in the next step. 6 A waiting request is admitted when its turn
//   comes if there is a place (places_in_step.h), there are pages for its whole prompt and, by the
//   mode, for its output (memory_forecast.h), and its adapter may join the step
//   (adapters_in_step.h). What the prefix cache has of it is neither computed nor paid for again.
//   7 The first that lacks pages has them reserved; those behind it go before it if they end before
//   it could begin or fit beside it, and only so many. If nothing runs or loads that could give
//   pages back, it can never be had and is refused.
//   8 A request whose adapter is not resident is passed over, and its adapter's load is started if
//   that takes nothing from those who run or come next. Who was passed over too often or too long
//   is pinned: its load's pages are reserved like any others, no adapter joins the step before its
//   own, and the one in use that has least to do is drained.
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
