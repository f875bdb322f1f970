// TenantLedger: who has had how much. Each tenant has a counter of the tokens that were computed
// for it, priced (input, output, known) and divided by its weight; of those who wait, the tenant
// with the least counter is served next. This is the virtual token counter of Sheng, Cao, Li, Zhu,
// Li, Zhuo, Gonzalez and Stoica, "Fairness in Serving Large Language Models" (OSDI 2024), kept by
// tenant and not by adapter, so that a tenant with a hundred adapters has one share.
//
// A tenant is *active* while it has unfinished requests, waiting or running. Who becomes active is
// lifted to the least counter of the active ones, or, if nobody is active, to the counter of the
// tenant that was active last: idling earns nothing. Counters only grow.
//
// Each priority class has counters of its own. One class goes before another whatever the tenants,
// so a tenant that waits with work of a late class has fallen behind those with urgent work without
// being owed anything by them; who comes with urgent work would be lifted to that counter, far
// below the others', and shut them out until it caught up. Across classes a counter means something
// only less the floor of its class.
//
// Bound. Of two tenants that both have requests of a class waiting all the time, as long as these
// fit and their adapters are there, weighted service differs by at most 2 U, where U is the
// greatest cost that the admitted requests of one tenant may still cause: who is ahead gets no new
// request in. Where places are kept (SchedulerPolicy::kept_places_share) they may go to somebody
// who is ahead by the tokens of a step, and it is as much more.
//
// Counters are in eighths of a token of weight 1 and price 1, and what a division leaves is carried
// to the next charge, so sums are exact and 2^53 tokens at price 2 and weight 0.01 do not overflow
// 64 bits.
//
// Thread: the engine's only. It does NOT decide anything: scheduler/waiting_queue.h orders by it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "scheduler/policy.h"
#include "scheduler/priority.h"

namespace lorad {

// A tenant while the ledger knows it.
using TenantIndex = uint32_t;

inline constexpr double kMinTenantWeight = 0.01;
inline constexpr double kMaxTenantWeight = 1000;

class TenantLedger {
 public:
  // What is charged. Tokens that are computed a second time, after a preemption, are none of these.
  struct Tokens {
    int64_t input = 0;   // computed prompt tokens
    int64_t cached = 0;  // prompt tokens that the prefix cache had
    int64_t output = 0;
  };

  // Idle tenants are remembered while so many are known; beyond it, only those that are ahead of
  // the floor.
  static constexpr size_t kMaxIdleTenants = 10000;

  // `floor`: where counters begin.
  explicit TenantLedger(const SchedulerPolicy& policy, uint64_t floor = 0);

  // One unfinished request more, or less. The index holds while the tenant has one. `weight` is the
  // tenant's from now on; beyond its bounds the bound counts.
  TenantIndex Arrive(const std::string& tenant, double weight, Priority priority);
  void Leave(TenantIndex tenant, Priority priority);  // REQUIRES: it has one of this class

  void Charge(TenantIndex tenant, Priority priority, const Tokens& tokens);
  // What Charge would add to the counter.
  uint64_t Cost(TenantIndex tenant, Priority priority, const Tokens& tokens) const;

  uint64_t counter(TenantIndex tenant, Priority priority) const;
  // By how much the counter is less than the greatest of the active tenants of the class, in
  // tokens.
  double behind(TenantIndex tenant, Priority priority) const;
  // Its weight over those of all tenants that are active in any class.  REQUIRES: it is.
  double share(TenantIndex tenant) const;
  // The least counter of the active tenants of the class; of the one that was last if none is.
  uint64_t floor(Priority priority) const;
  const std::string& name(TenantIndex tenant) const { return tenants_[tenant].name; }
  size_t known() const { return by_name_.size(); }
  // Greatest less least counter of the active tenants of a class, in tokens; of the class where
  // that is most.
  double spread() const;

 private:
  struct Account {
    uint64_t counter = 0;
    uint64_t remainder = 0;  // of the last division
    int unfinished = 0;
  };
  struct Tenant {
    std::string name;
    uint64_t weight = 1000;  // thousandths
    int unfinished = 0;      // of all classes
    std::array<Account, kPriorities> accounts;
  };
  struct Class {
    absl::btree_set<std::pair<uint64_t, TenantIndex>> active;  // by counter
    uint64_t last_left = 0;  // counter of the tenant that was active last
  };
  uint64_t Priced(const Account& account, const Tokens& tokens) const;  // before the division
  TenantIndex Add(const std::string& name);
  bool MayForget(const Tenant& tenant) const;
  void ForgetIdle();

  const uint64_t input_price_, output_price_, cached_price_;  // thousandths
  std::vector<Tenant> tenants_;                               // by index
  std::vector<TenantIndex> unused_;
  absl::flat_hash_map<std::string, TenantIndex> by_name_;
  std::array<Class, kPriorities> classes_;
  size_t forget_at_ = kMaxIdleTenants;
  uint64_t active_weight_ = 0;  // thousandths
};

}  // namespace lorad
