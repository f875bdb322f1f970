// SchedulerPolicy: every number that the scheduler's rules depend on. A plain value: the daemon
// fills it in once from its options, tests and benchmarks as they like. Each rule can be switched
// off by a value that its comment names; PlainFcfs switches off all of them.
#pragma once

#include <cstdint>

#include "memory/base/clock.h"

namespace lorad {

struct SchedulerPolicy {
  // Budgets.
  int max_step_tokens = 512;   // computed in one step
  int max_sequences = 256;     // running at a time
  int max_chunk_tokens = 256;  // of one prefill in one step
  int max_adapter_loads = 2;   // in flight
  int page_tokens = 16;        // tokens that a KV page holds
  uint32_t reserve_pages = 0;  // kept free at admission, for running sequences to grow into

  // Fairness between tenants (scheduler/tenant_ledger.h). Prices are per token of a tenant of
  // weight 1; an output token costs a step of its own, a known one next to nothing.
  bool fair_tenants = true;  // false: tenants do not count, only arrival does
  double input_price = 1;
  double output_price = 2;
  double cached_price = 0.1;

  // Priorities. A waiting request counts as one class more urgent for each `ageing` that it has
  // waited, so that no class waits for ever; zero: it does not age.
  bool priorities = true;  // false: all are of one class
  Duration ageing = std::chrono::seconds(10);
  // Of the tokens that decode leaves, this share is kept from the most urgent class while a less
  // urgent one has prompt tokens to compute. 0: nothing is kept.
  double lower_class_share = 0.1;
};

// The same budgets, and none of the rules: first come, first served.
constexpr SchedulerPolicy PlainFcfs(SchedulerPolicy policy) {
  policy.fair_tenants = false;
  policy.priorities = false;
  policy.lower_class_share = 0;
  return policy;
}

}  // namespace lorad
