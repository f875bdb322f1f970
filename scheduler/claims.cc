#include "scheduler/claims.h"

#include <algorithm>
#include <tuple>

namespace lorad {

std::vector<const RunningView*> ByClaim(const StepDraft& draft) {
  struct Claim {
    bool idle;
    bool may_go;
    Priority priority;
    uint64_t counter;
    RequestId id;
    const RunningView* sequence;
  };
  const SchedulerPolicy& policy = draft.policy;
  std::vector<Claim> claims;
  for (const RunningView& r : draft.view.running) {
    const Priority its = ClassOf(r.priority, policy);
    claims.push_back(
        {.idle = IsIdle(r, draft.view, policy),
         .may_go = MayBePreempted(r, policy),
         .priority = its,
         .counter = policy.fair_tenants ? draft.view.tenants->counter(r.tenant, its) : 0,
         .id = r.id,
         .sequence = &r});
  }
  std::sort(claims.begin(), claims.end(), [](const Claim& a, const Claim& b) {
    return std::tie(a.idle, a.may_go, a.priority, a.counter, a.id) <
           std::tie(b.idle, b.may_go, b.priority, b.counter, b.id);
  });
  std::vector<const RunningView*> sorted;
  for (const Claim& claim : claims) sorted.push_back(claim.sequence);
  return sorted;
}

}  // namespace lorad
