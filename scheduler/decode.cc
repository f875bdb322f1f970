#include "scheduler/decode.h"

namespace lorad {

// Victims are taken from the end: the youngest first.
void PlanDecode(StepDraft* draft) {
  const std::span<const RunningView> running = draft->view.running;
  size_t alive = running.size();
  for (size_t i = 0; i < alive; ++i) {
    const RunningView& r = running[i];
    if (r.paused || !IsDecode(r) || draft->tokens == 0) continue;
    const uint32_t missing = MissingPages(r, 1, draft->policy.page_tokens);
    while (missing > draft->pages && alive > i) {
      const RunningView& victim = running[--alive];
      draft->pages += static_cast<uint32_t>(victim.releasable_pages);
      draft->plan.preempt.push_back(victim.id);
    }
    if (alive <= i) break;  // the sequence itself was the youngest
    draft->pages -= missing;
    draft->tokens -= 1;
    draft->plan.run.push_back({r.id, 1, missing});
  }
}

}  // namespace lorad
