// StepDraft: a plan in the making, and what is left of the step's budgets. The rules take from it
// one after the other.
#pragma once

#include <algorithm>
#include <cstdint>

#include "scheduler/planner_view.h"
#include "scheduler/policy.h"
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
        tokens(policy.max_step_tokens),
        sequences(std::max(0, policy.max_sequences - static_cast<int>(view.running.size()))),
        loads(std::max(0, policy.max_adapter_loads - view.adapter_loads_in_flight)),
        pages(view.free_pages + view.evictable_pages) {}

  const PlannerView& view;
  const SchedulerPolicy& policy;
  StepPlan& plan;
  int tokens;
  int sequences;
  int loads;
  uint32_t pages;  // free or evictable
};

}  // namespace lorad
