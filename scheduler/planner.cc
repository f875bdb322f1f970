#include "scheduler/planner.h"

#include <algorithm>

namespace lorad {
namespace {

// What is left of the step's budgets while the plan is made.
struct Budget {
  int tokens;
  int sequences;
  int loads;
  uint32_t pages;  // free or evictable
};

bool IsDecode(const RunningView& r) { return r.known_tokens - r.computed_tokens == 1; }

uint32_t MissingPages(const RunningView& r, int tokens, int page_tokens) {
  const uint32_t needed = PagesFor(static_cast<size_t>(r.computed_tokens + tokens), page_tokens);
  return needed - std::min(needed, static_cast<uint32_t>(r.held_pages));
}

// Rules 1 and 2. Returns how many of `running` (a prefix: victims are taken from the end) stay.
size_t PlanDecode(std::span<const RunningView> running, const SchedulerPolicy& policy,
                  Budget* budget, StepPlan* plan) {
  size_t alive = running.size();
  for (size_t i = 0; i < alive; ++i) {
    const RunningView& r = running[i];
    if (r.paused || !IsDecode(r) || budget->tokens == 0) continue;
    const uint32_t missing = MissingPages(r, 1, policy.page_tokens);
    while (missing > budget->pages && alive > i) {
      const RunningView& victim = running[--alive];
      budget->pages += static_cast<uint32_t>(victim.releasable_pages);
      plan->preempt.push_back(victim.id);
    }
    if (alive <= i) break;  // the sequence itself was the youngest
    budget->pages -= missing;
    budget->tokens -= 1;
    plan->run.push_back({r.id, 1, missing});
  }
  return alive;
}

// Rule 3. Pages of a whole prompt are taken at admission, so a chunk rarely needs any.
void PlanPrefill(std::span<const RunningView> running, const SchedulerPolicy& policy,
                 Budget* budget, StepPlan* plan) {
  for (const RunningView& r : running) {
    if (r.paused || IsDecode(r)) continue;
    const int tokens =
        std::min({r.known_tokens - r.computed_tokens, policy.max_chunk_tokens, budget->tokens});
    if (tokens <= 0) continue;
    const uint32_t missing = MissingPages(r, tokens, policy.page_tokens);
    if (missing > budget->pages) continue;
    budget->pages -= missing;
    budget->tokens -= tokens;
    plan->run.push_back({r.id, tokens, missing});
  }
}

bool Contains(std::span<const uint64_t> ids, uint64_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// Rules 5 and 6.
void PlanAdmission(const PlannerView& view, const SchedulerPolicy& policy, Budget* budget,
                   StepPlan* plan) {
  // The reserve protects running sequences; with none running there is nobody to protect.
  const uint32_t reserve = view.running.empty() ? 0 : policy.reserve_pages;
  std::vector<uint64_t> pinned;  // idle adapters whose pages stopped being evictable in this plan
  // True: go on with the next request. Else `w` has to wait, and all behind it.
  const auto refused = [&](const WaitingView& w) {
    const bool hopeless = view.running.empty() && view.adapter_loads_in_flight == 0 &&
                          plan->admit.empty() && plan->load_adapters.empty();
    if (hopeless) plan->refuse.push_back(w.id);
    return hopeless;
  };
  for (const WaitingView& w : view.waiting) {
    if (budget->sequences == 0 || budget->tokens == 0) return;
    if (w.adapter_state == AdapterState::kLoading) continue;
    if (w.adapter_state == AdapterState::kStored) {
      if (Contains(plan->load_adapters, w.adapter) || budget->loads == 0) continue;
      if (w.adapter_pages > budget->pages) {
        if (refused(w)) continue;
        return;
      }
      budget->pages -= w.adapter_pages;
      budget->loads -= 1;
      plan->load_adapters.push_back(w.adapter);
      continue;
    }
    const uint32_t pages =
        PagesFor(static_cast<size_t>(w.known_tokens), policy.page_tokens) - w.cached_pages;
    const bool pins = w.adapter_idle && !Contains(pinned, w.adapter);
    const uint32_t taken = pages + w.cached_idle_pages + (pins ? w.adapter_pages : 0);
    if (taken + reserve > budget->pages) {
      if (refused(w)) continue;
      return;
    }
    budget->pages -= taken;
    if (pins) pinned.push_back(w.adapter);
    const int tokens =
        std::min({w.known_tokens - w.cached_tokens, policy.max_chunk_tokens, budget->tokens});
    budget->tokens -= tokens;
    budget->sequences -= 1;
    plan->admit.push_back(w.id);
    plan->run.push_back({w.id, tokens, pages});
  }
}

}  // namespace

void StepPlan::Clear() {
  preempt.clear();
  admit.clear();
  load_adapters.clear();
  run.clear();
  refuse.clear();
}

void PlanStep(const PlannerView& view, const SchedulerPolicy& policy, StepPlan* plan) {
  plan->Clear();
  Budget budget{
      .tokens = policy.max_step_tokens,
      .sequences = std::max(0, policy.max_sequences - static_cast<int>(view.running.size())),
      .loads = std::max(0, policy.max_adapter_loads - view.adapter_loads_in_flight),
      .pages = view.free_pages + view.evictable_pages};
  const size_t alive = PlanDecode(view.running, policy, &budget, plan);
  PlanPrefill(view.running.first(alive), policy, &budget, plan);
  if (plan->preempt.empty()) PlanAdmission(view, policy, &budget, plan);
}

}  // namespace lorad
