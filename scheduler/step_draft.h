// StepDraft: a plan in the making, and what is left of the step's budgets. The rules take from it
// one after the other.
#pragma once

#include <algorithm>
#include <cstdint>

#include "scheduler/planner_view.h"
#include "scheduler/policy.h"
#include "scheduler/step_budget.h"
#include "scheduler/step_plan.h"

namespace lorad {

// Pages that hold the keys and values of so many tokens.
constexpr uint32_t PagesFor(size_t tokens, int page_tokens) {
  const auto t = static_cast<size_t>(page_tokens);
  return static_cast<uint32_t>((tokens + t - 1) / t);
}

struct StepDraft {
  StepDraft(const PlannerView& view_in, const SchedulerPolicy& policy_in, StepPlan* plan_in)
      : view(view_in),
        policy(policy_in),
        plan(*plan_in),
        budget(BudgetOf(view, policy)),
        tokens(policy.max_step_tokens),
        loads(std::max(0, policy.max_adapter_loads - view.adapter_loads_in_flight)),
        pages(view.free_pages + view.evictable_pages) {}

  const PlannerView& view;
  const SchedulerPolicy& policy;
  StepPlan& plan;
  const StepBudget budget;
  int tokens;
  int burst_tokens = 0;  // of them: see StepBudget
  int loads;
  uint32_t pages;  // free or evictable

  void Run(const RunningView& r, int step_tokens, uint32_t new_pages) {
    pages -= new_pages;
    tokens -= step_tokens;
    plan.run.push_back({r.id, step_tokens, new_pages});
  }
  // Decode has what it needs: what is left is for prompts.
  void LeaveToPrompts() {
    const int normal = std::min(tokens, budget.prompt_tokens);
    burst_tokens = std::min(tokens - normal, budget.burst_tokens);
    tokens = normal + burst_tokens;
  }
  void TakeTokens(int taken) {
    tokens -= taken;
    burst_tokens = std::min(burst_tokens, tokens);
  }
  // Steps that a sequence which may go on for `left` more is counted to go on.
  int Expected(int left, int preemptions) const {
    if (policy.admission != AdmissionMode::kOptimistic || preemptions >= policy.max_preemptions) {
      return left;
    }
    return std::min(left, static_cast<int>(left * view.output_share) + 1);
  }
};

}  // namespace lorad
