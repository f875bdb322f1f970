// StepBudget: how much a step may hold so that the tokens of those who decode in it come no further
// apart than their classes should see (Objective::inter_token). What a step costs is known
// (scheduler/step_cost.h), so the objective is a number of prompt tokens beside those who decode,
// and a number of sequences that may decode. Sarathi-Serve (Agrawal et al., OSDI 2024) finds the
// number of tokens by profiling before it serves; here it follows what steps cost now.
//
// Decode is never held back: where those who decode are more than the objective allows, prompts
// still get a little, and fewer are let in until some have ended.
//
// A value; pure.
#pragma once

#include "scheduler/planner_view.h"
#include "scheduler/policy.h"

namespace lorad {

struct StepBudget {
  int prompt_tokens = 0;  // of those that decode leaves
  // So many more for tenants that run fewer sequences than their share, as long as steps of late
  // were shorter than they may be: a flooding tenant fills each step, and who comes now and then
  // need not wait for what it leaves. The objective is a mean.
  int burst_tokens = 0;
  // Running at a time. A request counts those that are at least as urgent as itself: what runs of
  // less urgent classes must not keep it out.
  int sequences = 0;

  bool operator==(const StepBudget&) const = default;
};

// What the policy allows, or less if a class that runs has an objective and the cost of steps is
// known.
StepBudget BudgetOf(const PlannerView& view, const SchedulerPolicy& policy);

}  // namespace lorad
