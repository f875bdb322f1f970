// PolicyOrder: one walk over all who have prompt tokens to compute, running or waiting, and over
// the adapters that are waited for, in the order in which they should be served
// (scheduler/waiting_queue.h has the rules). It is lazy: a step costs what it looks at.
//
// A tenant that is given tokens on the way is charged in this plan already, so a tenant that has a
// hundred requests waiting does not get all of a step.
#pragma once

#include <cstdint>
#include <queue>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "scheduler/planner_view.h"
#include "scheduler/policy.h"

namespace lorad {

class PolicyOrder {
 public:
  struct Candidate {
    int level = 0;                         // 0 is most urgent
    const RunningView* running = nullptr;  // with prompt tokens to compute, or
    // waiting: one that could run, or (stored, loading) the first of its class and tenant who waits
    // for that adapter.
    const WaitingRequest* waiting = nullptr;
    AdapterState adapter_state = AdapterState::kNone;

    bool cold() const {
      return adapter_state == AdapterState::kStored || adapter_state == AdapterState::kLoading;
    }
  };

  // `running` are those to be offered.  REQUIRES: the view and `running` outlive it and do not
  // change.
  PolicyOrder(const PlannerView& view, const SchedulerPolicy& policy,
              std::span<const RunningView* const> running, bool offer_waiting);

  bool Next(Candidate* candidate);  // false: there is nobody left

  // The tenant's other requests come as if it had been charged so.
  void Charge(TenantIndex tenant, Priority priority, const TenantLedger::Tokens& tokens);
  // Of the most urgent level, those who wait, or all, come after all others from now on.
  void PutUrgentWaitingLast() { waiting_last_ = true; }
  void PutUrgentLast() { waiting_last_ = running_last_ = true; }
  // No more waiting ones of this tenant and class that could run.
  void StopReadyOf(TenantIndex tenant, Priority priority) {
    stopped_.insert({tenant, ClassOf(priority, policy_)});
  }
  void StopReady() { stop_ready_ = true; }  // no more waiting ones that could run
  void StopCold() { stop_cold_ = true; }

 private:
  using Rows = WaitingQueue::Rows;
  struct Head {
    int level = 0;
    uint64_t counter = 0;  // less the floor of the class, with what was charged so far
    RequestId id = 0;
    uint64_t charged = 0;  // of `counter`: in this plan
    const RunningView* running = nullptr;
    const WaitingQueue::Row* row = nullptr;
    Rows::const_iterator in_rows{};  // while it stands for its row's followers, too
    bool opens_row = false;
    decltype(WaitingQueue::Row::lanes)::const_iterator lane{};
    bool opens_lane = false;
    decltype(WaitingQueue::Lane::requests)::const_iterator request{};
  };
  struct After {
    bool operator()(const Head& a, const Head& b) const {
      return std::tie(a.level, a.counter, a.id) > std::tie(b.level, b.counter, b.id);
    }
  };
  using AccountKey = std::pair<TenantIndex, Priority>;

  void PushRow(Rows::const_iterator row, const Rows& rows, int level);
  void PushLane(const Head& from, decltype(WaitingQueue::Row::lanes)::const_iterator lane);
  void PushNextRequest(const Head& from);
  void Push(Head head, TenantIndex tenant, Priority its);
  uint64_t ChargedTo(TenantIndex tenant, Priority priority) const;

  const PlannerView& view_;
  const SchedulerPolicy& policy_;
  std::priority_queue<Head, std::vector<Head>, After> heads_;
  absl::flat_hash_map<AccountKey, uint64_t> charged_;
  absl::flat_hash_set<AccountKey> stopped_;
  bool waiting_last_ = false;
  bool running_last_ = false;
  bool stop_ready_ = false;
  bool stop_cold_ = false;
};

}  // namespace lorad
