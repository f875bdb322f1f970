#include "scheduler/give_way.h"

#include <algorithm>

#include "scheduler/claims.h"
#include "scheduler/decode.h"

namespace lorad {

std::vector<const RunningView*> WhoMayGiveWay(const StepDraft& draft, const WaitingRequest& w,
                                              bool only_own) {
  const auto may = [&](const RunningView& r) {
    if (IsIdle(r, draft.view, draft.policy)) return true;
    if (only_own && r.tenant != w.tenant) return false;
    return ClassOf(r.priority, draft.policy) > ClassOf(w.priority, draft.policy) && IsDecode(r) &&
           !r.aged && MayBePreempted(r, draft.policy);
  };
  if (std::none_of(draft.view.running.begin(), draft.view.running.end(), may)) return {};
  std::vector<const RunningView*> candidates = ByClaim(draft);
  std::erase_if(candidates, [&may](const RunningView* r) { return !may(*r); });
  std::reverse(candidates.begin(), candidates.end());
  return candidates;
}

std::vector<const RunningView*> FewestWhoGiveWay(
    std::vector<const RunningView*> candidates,
    absl::FunctionRef<bool(std::span<const RunningView* const>)> enough) {
  const std::span<const RunningView* const> all = candidates;
  if (!enough(all) || enough({})) return {};
  size_t too_few = 0, fewest = candidates.size();
  while (fewest - too_few > 1) {
    const size_t middle = (too_few + fewest) / 2;
    (enough(all.first(middle)) ? fewest : too_few) = middle;
  }
  candidates.resize(fewest);
  return candidates;
}

}  // namespace lorad
