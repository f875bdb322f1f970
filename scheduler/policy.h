// SchedulerPolicy: every number that the scheduler's rules depend on. A plain value: the daemon
// fills it in once from its options, tests and benchmarks as they like. Each rule can be switched
// off by a value that its comment names; PlainFcfs switches off all of them.
#pragma once

#include <cstdint>
#include <limits>

#include "memory/base/clock.h"
#include "scheduler/objective.h"

namespace lorad {

// When a waiting request is let in, as far as pages go.
enum class AdmissionMode : uint8_t {
  // When there is room for its prompt. Sequences that grow then preempt each other.
  kPromptOnly,
  // When there is room for all outputs as long as they are expected to be.
  kOptimistic,
  // When all outputs can be as long as they may be. Nobody is ever preempted for want of pages,
  // unless an operator takes them away (pins an adapter); but who is less urgent gives way.
  kNoEvict,
};

struct SchedulerPolicy {
  // Budgets.
  int max_step_tokens = 512;   // computed in one step
  int max_sequences = 256;     // running at a time
  int max_chunk_tokens = 256;  // of one prefill in one step
  int max_adapter_loads = 2;   // in flight
  int page_tokens = 16;        // tokens that a KV page holds
  uint32_t reserve_pages = 0;  // kept free at admission, for running sequences to grow into
  // Of the distinct adapters of the running sequences: what a decode step reads beside the base
  // weights, and so what adapters cost. One adapter alone is never too large. 0: no bound.
  uint64_t max_adapter_bytes = 0;
  // What classes should see. Where a class that runs has an objective between tokens, steps are
  // made shorter for it (scheduler/step_budget.h). False: they are not.
  Objectives objectives;
  bool tune_steps = true;

  // Fairness between tenants (scheduler/tenant_ledger.h). Prices are per token of a tenant of
  // weight 1; an output token costs a step of its own, a known one next to nothing.
  bool fair_tenants = true;  // false: tenants do not count, only arrival does
  double input_price = 1;
  double output_price = 2;
  double cached_price = 0.1;
  // Of max_sequences: places that are kept for tenants which have fewer running than their share,
  // so that they need not wait until somebody of a flooding tenant ends. 0: none is.
  double kept_places_share = 1.0 / 8;

  // Priorities. A class counts as one more urgent for each `ageing` in which nobody of it was let
  // in, so that none waits for ever; zero: classes do not age.
  bool priorities = true;  // false: all are of one class
  Duration ageing = std::chrono::seconds(5);
  // Of the tokens that decode leaves, this share is kept from the most urgent class while a less
  // urgent one has prompt tokens to compute. 0: nothing is kept.
  double lower_class_share = 0.1;

  // Admission by memory (scheduler/memory_forecast.h).
  AdmissionMode admission = AdmissionMode::kNoEvict;
  // kOptimistic: the share of the output that it may yet make that a sequence is expected to make:
  // it begins at `first`, falls to `least` in so many steps, and rises again with each preemption.
  double first_output_share = 0.7;
  double least_output_share = 0.05;
  int output_share_steps = 300;

  // No head-of-line blocking: who does not fit has room reserved, and those behind it may go before
  // it if they end before that room is there or fit beside it. False: they wait for it.
  bool backfill = true;
  int max_backfills = 64;  // that go before one request; then those behind it wait all the same
  // Of those that do not fit, or whose adapter is cold, at most so many are looked at in a step.
  int max_passed_over = 64;

  // A request that waits for an adapter is overtaken by those that can run. Once it was overtaken
  // so often, or for so long, it is pinned: the room that its adapter lacks is reserved for it.
  // Room for an adapter is made by not using another one, so whoever is pinned too soon costs all
  // more than it gains. kNeverPinned and Duration::max(): nobody is.
  static constexpr int kNeverPinned = std::numeric_limits<int>::max();
  int max_overtakes = 64;
  Duration max_overtaken_time = std::chrono::seconds(3);
  // While somebody is pinned, the adapter in use that has least to do is drained: of its requests
  // only those are let in that go on for at most so many times as long as it would without. 0:
  // nothing is drained.
  double drain_tolerance = 1.2;
  // Adapters of so many of the next requests are kept in the pool while others that nobody has
  // waited too long for are loaded. 0: none is.
  int kept_requests = 32;

  // Who could run but for a place or pages takes those of less urgent classes, and of sequences
  // whose reader has been slow for so long. False: it waits until somebody ends.
  bool give_way = true;
  Duration parking_delay = std::chrono::milliseconds(100);

  // Who gives way when pages run out: of the least urgent class, on behalf of the tenant that has
  // had most, the youngest. So often at most; then others do while there are any.
  int max_preemptions = 3;
};

// The same budgets and objectives, and none of the rules: first come, first served. Whoever is
// first and does not fit, or whose adapter does not, stops all behind it until it does, so nobody
// starves and nobody need be pinned. Others go before it only while its adapter is loaded.
constexpr SchedulerPolicy PlainFcfs(SchedulerPolicy policy) {
  policy.tune_steps = false;
  policy.fair_tenants = false;
  policy.kept_places_share = 0;
  policy.priorities = false;
  policy.lower_class_share = 0;
  policy.admission = AdmissionMode::kPromptOnly;
  policy.backfill = false;
  policy.max_adapter_bytes = 0;
  policy.max_overtakes = SchedulerPolicy::kNeverPinned;
  policy.max_overtaken_time = Duration::max();
  policy.drain_tolerance = 0;
  policy.kept_requests = 0;
  policy.give_way = false;
  policy.max_preemptions = std::numeric_limits<int>::max();
  return policy;
}

}  // namespace lorad
