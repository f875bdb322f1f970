// PlacesInStep: who has which of the places in the batch, those that this plan gives included, and
// how many are left for whom:
//   - of all places the policy allows, and of those that an objective between tokens leaves, where
//     a class counts those that are at least as urgent (scheduler/step_budget.h);
//   - the last ones are kept for tenants that run fewer than their share.
#pragma once

#include <array>

#include "absl/container/flat_hash_map.h"
#include "scheduler/planner_view.h"
#include "scheduler/policy.h"
#include "scheduler/step_budget.h"
#include "scheduler/waiting_queue.h"

namespace lorad {

class PlacesInStep {
 public:
  // All are borrowed.
  PlacesInStep(const TenantLedger* tenants, const SchedulerPolicy* policy, const StepBudget* budget)
      : tenants_(*tenants), policy_(*policy), budget_(*budget) {}

  void Take(TenantIndex tenant, Priority priority) { Add(tenant, priority, 1); }
  void Leave(TenantIndex tenant, Priority priority) { Add(tenant, priority, -1); }

  // Left for one more of this tenant and class; none or fewer: it must wait.
  int For(TenantIndex tenant, Priority priority) const;
  // Left for anybody.
  int left() const { return policy_.max_sequences - taken_; }
  int of(Priority priority) const { return of_class_[static_cast<size_t>(priority)]; }
  // The tenant runs as many as its share of the places, or tenants do not count.
  bool HasItsShare(TenantIndex tenant) const {
    return !policy_.fair_tenants || Lacking(tenant) <= 0;
  }

 private:
  void Add(TenantIndex tenant, Priority priority, int places);
  // That the tenant would have to take to run its share.
  double Lacking(TenantIndex tenant) const;

  const TenantLedger& tenants_;
  const SchedulerPolicy& policy_;
  const StepBudget& budget_;
  int taken_ = 0;
  absl::flat_hash_map<TenantIndex, int> of_tenant_;
  std::array<int, kPriorities> of_class_{};
};

}  // namespace lorad
