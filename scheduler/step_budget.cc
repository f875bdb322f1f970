#include "scheduler/step_budget.h"

#include <algorithm>

#include "scheduler/decode.h"

namespace lorad {
namespace {

// What a token takes beside its step (the step's plan, what queues up) is not in the cost, and
// steps differ.
constexpr double kMargin = 0.9;
// Of a chunk, of the sequences: so many go on being served even if the objective cannot be met.
constexpr int kLeastParts = 8;
// Sequences are let in while so much of a chunk has room beside them.
constexpr double kPromptRoom = 0.25;

// The strictest objective of those who run, seconds; 0: there is none.
double Target(const PlannerView& view, const SchedulerPolicy& policy) {
  Duration target{};
  for (const RunningView& r : view.running) {
    const Duration its = policy.objectives[static_cast<size_t>(r.priority)].inter_token;
    if (r.paused || its <= Duration::zero()) continue;
    target = target <= Duration::zero() ? its : std::min(target, its);
  }
  return Seconds(target);
}

// At least one.
int RowsIn(double seconds, double row, int least, int most) {
  least = std::max(1, least);
  if (seconds <= least * row) return least;
  return seconds >= most * row ? most : static_cast<int>(seconds / row);
}

}  // namespace

StepBudget BudgetOf(const PlannerView& view, const SchedulerPolicy& policy) {
  StepBudget budget{.prompt_tokens = policy.max_step_tokens, .sequences = policy.max_sequences};
  const double objective = Target(view, policy);
  const double target = kMargin * objective;
  if (!policy.tune_steps || !view.step_cost.has_value() || target <= 0) return budget;
  const StepCost& cost = *view.step_cost;
  const double left = target - cost.base;
  const auto decoding = std::count_if(view.running.begin(), view.running.end(),
                                      [](const RunningView& r) { return IsDecode(r); });
  budget.prompt_tokens =
      RowsIn(left - static_cast<double>(decoding) * cost.decode_row, cost.prompt_row,
             policy.max_chunk_tokens / kLeastParts, policy.max_step_tokens);
  if (view.recent_step_s < objective) {
    budget.burst_tokens = std::max(0, policy.max_step_tokens - budget.prompt_tokens);
  }
  const double chunk = kPromptRoom * policy.max_chunk_tokens * cost.prompt_row;
  budget.sequences = RowsIn(left - chunk, cost.decode_row, policy.max_sequences / kLeastParts,
                            policy.max_sequences);
  return budget;
}

}  // namespace lorad
