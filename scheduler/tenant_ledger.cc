#include "scheduler/tenant_ledger.h"

#include <algorithm>
#include <cmath>

#include "memory/base/check.h"

namespace lorad {
namespace {

constexpr uint64_t kUnitsPerToken = 8;

uint64_t Thousandths(double value) { return static_cast<uint64_t>(std::llround(value * 1000)); }

}  // namespace

TenantLedger::TenantLedger(const SchedulerPolicy& policy, uint64_t floor)
    : input_price_(Thousandths(policy.input_price)),
      output_price_(Thousandths(policy.output_price)),
      cached_price_(Thousandths(policy.cached_price)) {
  for (Class& c : classes_) c.last_left = floor;
}

TenantIndex TenantLedger::Add(const std::string& name) {
  if (by_name_.size() >= forget_at_) ForgetIdle();
  if (unused_.empty()) {
    unused_.push_back(static_cast<TenantIndex>(tenants_.size()));
    tenants_.emplace_back();
  }
  const TenantIndex index = unused_.back();
  unused_.pop_back();
  tenants_[index] = {.name = name};
  by_name_.emplace(name, index);
  return index;
}

TenantIndex TenantLedger::Arrive(const std::string& name, double weight, Priority priority) {
  const auto known = by_name_.find(name);
  const TenantIndex index = known != by_name_.end() ? known->second : Add(name);
  Tenant& tenant = tenants_[index];
  if (tenant.unfinished++ > 0) active_weight_ -= tenant.weight;
  tenant.weight = Thousandths(std::clamp(weight, kMinTenantWeight, kMaxTenantWeight));
  active_weight_ += tenant.weight;
  Account& account = tenant.accounts[static_cast<size_t>(priority)];
  if (account.unfinished++ == 0) {
    account.counter = std::max(account.counter, floor(priority));
    classes_[static_cast<size_t>(priority)].active.insert({account.counter, index});
  }
  return index;
}

void TenantLedger::Leave(TenantIndex index, Priority priority) {
  Account& account = tenants_[index].accounts[static_cast<size_t>(priority)];
  Class& c = classes_[static_cast<size_t>(priority)];
  LORAD_CHECK(account.unfinished > 0);
  if (--tenants_[index].unfinished == 0) active_weight_ -= tenants_[index].weight;
  if (--account.unfinished > 0) return;
  c.active.erase({account.counter, index});
  if (c.active.empty()) c.last_left = account.counter;
}

uint64_t TenantLedger::Priced(const Account& account, const Tokens& tokens) const {
  return account.remainder +
         kUnitsPerToken * (static_cast<uint64_t>(tokens.input) * input_price_ +
                           static_cast<uint64_t>(tokens.cached) * cached_price_ +
                           static_cast<uint64_t>(tokens.output) * output_price_);
}

uint64_t TenantLedger::Cost(TenantIndex index, Priority priority, const Tokens& tokens) const {
  const Tenant& tenant = tenants_[index];
  return Priced(tenant.accounts[static_cast<size_t>(priority)], tokens) / tenant.weight;
}

void TenantLedger::Charge(TenantIndex index, Priority priority, const Tokens& tokens) {
  Tenant& tenant = tenants_[index];
  Account& account = tenant.accounts[static_cast<size_t>(priority)];
  LORAD_CHECK(account.unfinished > 0);
  const uint64_t priced = Priced(account, tokens);
  account.remainder = priced % tenant.weight;
  const uint64_t cost = priced / tenant.weight;
  if (cost == 0) return;
  auto& active = classes_[static_cast<size_t>(priority)].active;
  active.erase({account.counter, index});
  account.counter += cost;
  active.insert({account.counter, index});
}

uint64_t TenantLedger::counter(TenantIndex tenant, Priority priority) const {
  return tenants_[tenant].accounts[static_cast<size_t>(priority)].counter;
}

double TenantLedger::behind(TenantIndex tenant, Priority priority) const {
  const auto& active = classes_[static_cast<size_t>(priority)].active;
  const uint64_t its = counter(tenant, priority);
  if (active.empty() || active.rbegin()->first <= its) return 0;
  return static_cast<double>(active.rbegin()->first - its) / kUnitsPerToken;
}

double TenantLedger::share(TenantIndex tenant) const {
  return static_cast<double>(tenants_[tenant].weight) / static_cast<double>(active_weight_);
}

uint64_t TenantLedger::floor(Priority priority) const {
  const Class& c = classes_[static_cast<size_t>(priority)];
  return c.active.empty() ? c.last_left : c.active.begin()->first;
}

double TenantLedger::spread() const {
  uint64_t widest = 0;
  for (const Class& c : classes_) {
    if (c.active.empty()) continue;
    widest = std::max(widest, c.active.rbegin()->first - c.active.begin()->first);
  }
  return static_cast<double>(widest) / kUnitsPerToken;
}

// Who is idle and not ahead would be lifted when it comes back: forgetting it changes nothing.
bool TenantLedger::MayForget(const Tenant& tenant) const {
  for (size_t p = 0; p < kPriorities; ++p) {
    const Account& account = tenant.accounts[p];
    if (account.unfinished > 0 || account.counter > floor(static_cast<Priority>(p))) return false;
  }
  return true;
}

// If that leaves too many, the next look is only taken when there are twice as many.
void TenantLedger::ForgetIdle() {
  absl::erase_if(by_name_, [this](const auto& known) {
    if (!MayForget(tenants_[known.second])) return false;
    unused_.push_back(known.second);
    return true;
  });
  forget_at_ = std::max(kMaxIdleTenants, 2 * by_name_.size());
}

}  // namespace lorad
