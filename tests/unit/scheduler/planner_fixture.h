// A serving state to plan from, put together by hand.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "scheduler/planner.h"

namespace lorad {

struct PlannerFixture : PlannerFacts {
  explicit PlannerFixture(const SchedulerPolicy& policy_in)
      : policy(policy_in), ledger(policy), queue(&policy, &ledger) {
    Arrive("");  // whose requests the running ones are, unless a test says otherwise
  }

  struct Waiting {
    RequestId id = 0;
    int tokens = 1;  // known
    int left = 1;
    std::string tenant = {};
    Priority priority = Priority::kStandard;
    AdapterVersionId adapter = 0;
    uint32_t adapter_pages = 0;
    AdapterState state = AdapterState::kNone;  // a resident one is idle
    double weight = 1;
    int preemptions = 0;
  };
  TenantIndex Wait(const Waiting& w) {
    const TenantIndex tenant = Arrive(w.tenant, w.priority, w.weight);
    queue.Add({.id = w.id,
               .tenant = tenant,
               .priority = w.priority,
               .arrival = now,
               .known_tokens = w.tokens,
               .left_tokens = w.left,
               .adapter = w.adapter,
               .adapter_pages = w.adapter_pages,
               .adapter_bytes = w.adapter_pages,
               .preemptions = w.preemptions},
              w.state, now);
    if (w.state == AdapterState::kResident) idle.insert(w.adapter);
    return tenant;
  }
  TenantIndex Arrive(const std::string& tenant, Priority priority = Priority::kStandard,
                     double weight = 1) {
    return ledger.Arrive(tenant, weight, ClassOf(priority, policy));
  }
  // A sequence that has one token to compute, and keeps it to itself.
  RunningView& Decode(RequestId id, int tokens, int pages) {
    running.push_back({.id = id,
                       .known_tokens = tokens,
                       .computed_tokens = tokens - 1,
                       .left_tokens = 1,
                       .held_pages = pages,
                       .releasable_pages = pages});
    return running.back();
  }
  RunningView& Prompt(RequestId id, int tokens, int computed = 0) {
    const int pages = static_cast<int>(PagesFor(static_cast<size_t>(tokens), policy.page_tokens));
    running.push_back({.id = id,
                       .known_tokens = tokens,
                       .computed_tokens = computed,
                       .left_tokens = 1,
                       .held_pages = pages,
                       .releasable_pages = pages});
    return running.back();
  }
  StepPlan Plan() {
    StepPlan plan;
    PlanStep({.now = now,
              .running = running,
              .waiting = &queue,
              .tenants = &ledger,
              .facts = this,
              .free_pages = free,
              .evictable_pages = evictable,
              .adapter_loads_in_flight = loads,
              .recent_step_s = recent_step_s,
              .step_cost = step_cost},
             policy, &plan);
    return plan;
  }

  KnownPrefix PrefixOf(RequestId id) const override {
    const auto found = prefixes.find(id);
    return found == prefixes.end() ? KnownPrefix{} : found->second;
  }
  bool IsIdle(AdapterVersionId adapter) const override { return idle.contains(adapter); }

  const SchedulerPolicy policy;
  TenantLedger ledger;
  WaitingQueue queue;
  TimePoint now{};
  std::vector<RunningView> running;
  std::map<RequestId, KnownPrefix> prefixes;
  std::set<AdapterVersionId> idle;
  uint32_t free = 0;
  uint32_t evictable = 0;
  int loads = 0;
  double recent_step_s = 0;
  std::optional<StepCost> step_cost;
};

}  // namespace lorad
