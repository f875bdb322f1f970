// WaitingQueue: the requests that wait, kept in the order in which they should be served, so that
// planning a step costs what it looks at and not what waits. The order:
//
//   1 by priority class;
//   2 by the counter of its tenant in its class (scheduler/tenant_ledger.h);
//   3 by arrival. A request that was preempted keeps its arrival.
//
// A class ages: for each SchedulerPolicy::ageing in which it had requests waiting and none was
// admitted, its first request counts as one class more urgent. Classes age and not requests, so
// that the backlog of a flooding tenant, which is old because it floods, goes before nobody.
//
// Requests of one class, tenant and adapter are a *lane*, in order of arrival. The lanes of one
// class and tenant are two *rows*: those that can run (base model, adapter resident) and the *cold*
// ones, whose adapter is stored or loading. An adapter that comes or goes moves whole lanes. The
// rows of a class stand in order of their tenants' counters.
//
// It is a set of books, not a decision: scheduler/policy_order.h walks it. Thread: the engine's
// only. Every operation is logarithmic; whoever changes a tenant's counter says so (Reprice).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "scheduler/policy.h"
#include "scheduler/waiting_request.h"

namespace lorad {

// The class that rules and books go by: all are one if priorities are off.
constexpr Priority ClassOf(Priority priority, const SchedulerPolicy& policy) {
  return policy.priorities ? priority : Priority::kStandard;
}

class WaitingQueue {
 public:
  struct Lane {
    Priority priority;
    TenantIndex tenant;
    AdapterVersionId adapter;
    AdapterState state;
    absl::btree_map<RequestId, WaitingRequest> requests;

    bool ready() const { return state == AdapterState::kNone || state == AdapterState::kResident; }
    RequestId head() const { return requests.begin()->first; }
  };
  struct Row {
    // (tenant's counter, first request): its place among the rows of its level and class.
    using Place = std::pair<uint64_t, RequestId>;

    Priority priority;
    TenantIndex tenant;
    bool ready;
    absl::btree_map<RequestId, const Lane*> lanes;  // by their first request
    Place place;

    const WaitingRequest& head() const { return lanes.begin()->second->requests.begin()->second; }
  };
  using Rows = absl::btree_map<Row::Place, const Row*>;

  // Both are borrowed.
  WaitingQueue(const SchedulerPolicy* policy, const TenantLedger* ledger)
      : policy_(*policy), ledger_(*ledger) {}
  WaitingQueue(const WaitingQueue&) = delete;
  WaitingQueue& operator=(const WaitingQueue&) = delete;

  // `state` is that of its adapter now.  REQUIRES: the id is not here.
  void Add(const WaitingRequest& request, AdapterState state, TimePoint now);
  // Takes a request out: because it is admitted, or because it ended.  REQUIRES: it is here.
  void Admit(RequestId id, TimePoint now);
  void Remove(RequestId id);
  // What became of an adapter; nothing happens if nobody waits for it.
  void SetAdapterState(AdapterVersionId adapter, AdapterState state);
  // Others that were behind it were admitted.  REQUIRES: it is here.
  void Overtake(RequestId id, int times, TimePoint now);
  // The tenant's counter in this class has changed.
  void Reprice(TenantIndex tenant, Priority priority);

  size_t size() const { return lane_of_.size(); }
  bool empty() const { return lane_of_.empty(); }
  const WaitingRequest* Find(RequestId id) const;  // null: not here
  // All that wait for an adapter.
  std::vector<RequestId> WaitingFor(AdapterVersionId adapter) const;
  const Rows& rows(Priority priority, bool ready) const {
    return rows_[static_cast<size_t>(priority)][ready ? 1 : 0];
  }
  // How urgent the first request of a class is: its class, less what that has aged; 0 is most.
  int FirstLevel(Priority priority, TimePoint now) const;
  // Internal error naming the first thing that is out of place. O(size).
  absl::Status Validate() const;

 private:
  using RowKey = std::tuple<Priority, TenantIndex, bool>;
  using LaneKey = std::tuple<Priority, TenantIndex, AdapterVersionId>;

  // Takes a lane out of its row, or puts it in, before and after its head or state changes.
  void Detach(const Lane& lane);
  void Attach(const Lane& lane);
  // The same for a row, which is forgotten when it has no lane.
  void Unlist(const Row& row);
  void List(Row* row);
  uint64_t CounterOf(const Row& row) const;

  const SchedulerPolicy& policy_;
  const TenantLedger& ledger_;
  absl::flat_hash_map<LaneKey, std::unique_ptr<Lane>> lanes_;
  absl::flat_hash_map<RowKey, std::unique_ptr<Row>> by_key_;
  absl::flat_hash_map<RequestId, Lane*> lane_of_;
  absl::flat_hash_map<AdapterVersionId, std::vector<Lane*>> lanes_of_;  // not of the base model
  std::array<std::array<Rows, 2>, kPriorities> rows_;                   // by class, ready
  std::array<size_t, kPriorities> waiting_{};                           // requests of a class
  // When one was last admitted, or when the first one came.
  std::array<TimePoint, kPriorities> passed_over_since_;
};

}  // namespace lorad
