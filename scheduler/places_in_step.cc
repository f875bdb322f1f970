#include "scheduler/places_in_step.h"

#include <algorithm>
#include <numeric>

namespace lorad {

void PlacesInStep::Add(TenantIndex tenant, Priority priority, int places) {
  taken_ += places;
  of_tenant_[tenant] += places;
  of_class_[static_cast<size_t>(ClassOf(priority, policy_))] += places;
}

double PlacesInStep::Lacking(TenantIndex tenant) const {
  const auto has = of_tenant_.find(tenant);
  return tenants_.share(tenant) * budget_.sequences - (has == of_tenant_.end() ? 0 : has->second);
}

int PlacesInStep::For(TenantIndex tenant, Priority priority) const {
  const auto its = static_cast<ptrdiff_t>(ClassOf(priority, policy_));
  const int taken = std::accumulate(of_class_.begin(), of_class_.begin() + its + 1, 0);
  const int places = std::min(left(), budget_.sequences - taken);
  if (!policy_.fair_tenants) return places;
  const double lacking = Lacking(tenant);
  // Who is far behind has its turn all the same: those who would get the place have had more.
  const bool far_behind =
      tenants_.behind(tenant, ClassOf(priority, policy_)) > policy_.max_step_tokens;
  if (lacking <= 0 && !far_behind) {
    return places - static_cast<int>(policy_.kept_places_share * budget_.sequences);
  }
  // A tuned budget moves from step to step, and those who together have no more than all of it need
  // not notice.
  return lacking >= 1 ? left() : places;
}

}  // namespace lorad
