// PlannerView: all that a plan depends on, at one moment. The lists are small or shared with their
// owner; what is dear to find out of a request is asked only of those that the planner comes to.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "memory/base/clock.h"
#include "scheduler/step_rates.h"
#include "scheduler/tenant_ledger.h"
#include "scheduler/waiting_queue.h"
#include "scheduler/waiting_request.h"

namespace lorad {

struct RunningView {
  RequestId id = 0;
  TenantIndex tenant = 0;
  Priority priority = Priority::kStandard;
  AdapterVersionId adapter = 0;  // 0: base model
  uint64_t adapter_bytes = 0;    // of its image
  int known_tokens = 0;          // prompt and output so far
  int computed_tokens = 0;       // of those, in the KV cache; < known_tokens
  int left_tokens = 0;           // that it may generate yet, at most
  int held_pages = 0;
  int releasable_pages = 0;  // of held_pages: those that nobody else holds
  int preemptions = 0;
  RequestId sample_of = 0;  // see WaitingRequest
  bool aged = false;        // let in because its class had waited long
  // Keeps its pages and gets no tokens: its reader is slow, or enough is on its way.
  bool paused = false;
  TimePoint paused_since = TimePoint::max();  // its reader is slow
};

// What the prefix cache has of a waiting request.
struct KnownPrefix {
  int tokens = 0;      // < known_tokens
  uint32_t pages = 0;  // that it would share
  // Pages that can be had now and could not if it were admitted: shared ones that nobody uses, and
  // the one that it would copy from.
  uint32_t idle_pages = 0;
  // Of the shared ones, those that one running sequence holds: it will not give them back when it
  // ends.
  uint32_t sole_pages = 0;
};

// Answers about one moment: the same question has the same answer until the view is gone.
class PlannerFacts {
 public:
  virtual ~PlannerFacts() = default;
  virtual KnownPrefix PrefixOf(RequestId waiting) const = 0;
  // A resident adapter is in no use, and its pages are counted in evictable_pages.
  virtual bool IsIdle(AdapterVersionId adapter) const = 0;
};

struct PlannerView {
  TimePoint now;
  std::span<const RunningView> running;   // by arrival
  const WaitingQueue* waiting = nullptr;  // with the states of the adapters
  const TenantLedger* tenants = nullptr;
  const PlannerFacts* facts = nullptr;
  uint32_t free_pages = 0;
  uint32_t evictable_pages = 0;  // held by idle adapters or only by the prefix cache
  int adapter_loads_in_flight = 0;
  double output_share = 1;            // AdmissionMode::kOptimistic: see OutputShare
  double recent_step_s = 0;           // what a step took of late
  std::optional<StepCost> step_cost;  // once it is known well enough to tune steps by
};

}  // namespace lorad
