// Giving way: a waiting request that could run but for a place or pages takes those of running
// sequences of less urgent classes, so that urgent work does not wait for the end of a long batch
// (priority inversion). Only of those whose prompts are computed, so that whoever has had a place
// got on by a token at least; and not of those that were let in because their class had waited
// long: they would have to wait as long again. And those of sequences whose readers are slow, which
// would keep them and do nothing. What was computed stays in the prefix cache as long as there is
// room.
#pragma once

#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "scheduler/step_draft.h"

namespace lorad {

// Who may lose its place to `w`, those with the least claim first. `only_own`: its tenant's, and
// those whose readers are slow.
std::vector<const RunningView*> WhoMayGiveWay(const StepDraft& draft, const WaitingRequest& w,
                                              bool only_own);

// The fewest of them, from the front, without whom there is `enough`; empty: all of them would not
// do, or none is needed.  REQUIRES: who is enough is enough with one more.
std::vector<const RunningView*> FewestWhoGiveWay(
    std::vector<const RunningView*> candidates,
    absl::FunctionRef<bool(std::span<const RunningView* const>)> enough);

}  // namespace lorad
