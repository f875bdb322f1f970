#include "scheduler/decode.h"

#include <algorithm>
#include <vector>

#include "scheduler/claims.h"
#include "scheduler/safe_state.h"

namespace lorad {
namespace {

int64_t LackingToTheEnd(const RunningView& r, int page_tokens) {
  const int last = std::max(0, r.known_tokens + r.left_tokens - 1);
  return std::max<int64_t>(
      0, int64_t{PagesFor(static_cast<size_t>(last), page_tokens)} - r.held_pages);
}

// Gives pages only while all can still come to their ends. False: they cannot as it is.
bool PlanSafeDecode(StepDraft* draft) {
  SafeState state;
  for (const RunningView& r : draft->view.running) {
    state.Add(LackingToTheEnd(r, draft->policy.page_tokens), r.releasable_pages);
  }
  if (!state.IsSafe(draft->pages)) return false;
  for (size_t i = 0; i < draft->view.running.size(); ++i) {
    const RunningView& r = draft->view.running[i];
    if (r.paused || !IsDecode(r) || draft->tokens == 0) continue;
    const uint32_t missing = MissingPages(r, 1, draft->policy.page_tokens);
    if (missing > 0 && !state.IsSafeAfterGiving(i, missing, draft->pages)) continue;  // not now
    state.Give(i, missing);
    draft->Run(r, 1, missing);
  }
  return true;
}

// Victims are taken from the end of the claims.
void PlanPreemptingDecode(StepDraft* draft) {
  const std::vector<const RunningView*> running = ByClaim(*draft);
  size_t alive = running.size();
  for (size_t i = 0; i < alive; ++i) {
    const RunningView& r = *running[i];
    if (r.paused || !IsDecode(r) || draft->tokens == 0) continue;
    const uint32_t missing = MissingPages(r, 1, draft->policy.page_tokens);
    while (missing > draft->pages && alive > i) {
      const RunningView& victim = *running[--alive];
      draft->pages += static_cast<uint32_t>(victim.releasable_pages);
      draft->plan.preempt.push_back(victim.id);
    }
    if (alive <= i) break;  // nobody has less of a claim than the sequence itself
    draft->Run(r, 1, missing);
  }
  std::sort(draft->plan.run.begin(), draft->plan.run.end(),
            [](const StepPlan::Run& a, const StepPlan::Run& b) { return a.id < b.id; });
}

bool HasPagesForAll(const StepDraft& draft) {
  uint32_t missing = 0;
  for (const RunningView& r : draft.view.running) {
    if (!r.paused && IsDecode(r)) missing += MissingPages(r, 1, draft.policy.page_tokens);
  }
  return missing <= draft.pages;
}

void PlanAmpleDecode(StepDraft* draft) {
  for (const RunningView& r : draft->view.running) {
    if (r.paused || !IsDecode(r) || draft->tokens == 0) continue;
    draft->Run(r, 1, MissingPages(r, 1, draft->policy.page_tokens));
  }
}

}  // namespace

void PlanDecode(StepDraft* draft) {
  if (draft->policy.admission == AdmissionMode::kNoEvict && PlanSafeDecode(draft)) return;
  if (HasPagesForAll(*draft)) return PlanAmpleDecode(draft);
  PlanPreemptingDecode(draft);
}

}  // namespace lorad
