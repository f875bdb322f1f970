// Rules 1 and 2 of the planner: every decoding sequence gets its token, and if there is no page for
// it, somebody else's place.
#pragma once

#include "scheduler/step_draft.h"

namespace lorad {

// A sequence with one token to compute, which gives the next.
inline bool IsDecode(const RunningView& r) { return r.known_tokens - r.computed_tokens == 1; }

// Pages that it lacks to compute so many tokens more.
inline uint32_t MissingPages(const RunningView& r, int tokens, int page_tokens) {
  const uint32_t needed = PagesFor(static_cast<size_t>(r.computed_tokens + tokens), page_tokens);
  return needed - std::min(needed, static_cast<uint32_t>(r.held_pages));
}

void PlanDecode(StepDraft* draft);

}  // namespace lorad
