#include "scheduler/policy_order.h"

#include <tuple>
#include <utility>

namespace lorad {

PolicyOrder::PolicyOrder(const PlannerView& view, const SchedulerPolicy& policy,
                         std::span<const RunningView* const> running, bool offer_waiting)
    : view_(view), policy_(policy) {
  for (const RunningView* r : running) {
    const Priority its = ClassOf(r->priority, policy_);
    Push({.level = static_cast<int>(its), .id = r->id, .running = r}, r->tenant, its);
  }
  if (!offer_waiting) return;
  for (int p = 0; p < kPriorities; ++p) {
    const auto its = static_cast<Priority>(p);
    for (const bool ready : {true, false}) {
      const Rows& rows = view.waiting->rows(its, ready);
      PushRow(rows.begin(), rows, view.waiting->FirstLevel(its, view.now));
    }
  }
}

uint64_t PolicyOrder::ChargedTo(TenantIndex tenant, Priority priority) const {
  const auto found = charged_.find(AccountKey{tenant, priority});
  return found == charged_.end() ? 0 : found->second;
}

void PolicyOrder::Charge(TenantIndex tenant, Priority priority,
                         const TenantLedger::Tokens& tokens) {
  if (!policy_.fair_tenants) return;
  const Priority its = ClassOf(priority, policy_);
  charged_[AccountKey{tenant, its}] += view_.tenants->Cost(tenant, its, tokens);
}

void PolicyOrder::Push(Head head, TenantIndex tenant, Priority its) {
  if (policy_.fair_tenants) {
    head.charged = ChargedTo(tenant, its);
    head.counter = view_.tenants->counter(tenant, its) - view_.tenants->floor(its) + head.charged;
  }
  heads_.push(std::move(head));
}

void PolicyOrder::PushRow(Rows::const_iterator row, const Rows& rows, int level) {
  if (row == rows.end()) return;
  const auto lane = row->second->lanes.begin();
  Push({.level = level,
        .id = lane->first,
        .row = row->second,
        .in_rows = row,
        .opens_row = true,
        .lane = lane,
        .opens_lane = true,
        .request = lane->second->requests.begin()},
       row->second->tenant, row->second->priority);
}

void PolicyOrder::PushLane(const Head& from,
                           decltype(WaitingQueue::Row::lanes)::const_iterator lane) {
  if (lane == from.row->lanes.end()) return;
  Push({.level = static_cast<int>(from.row->priority),
        .id = lane->first,
        .row = from.row,
        .lane = lane,
        .opens_lane = true,
        .request = lane->second->requests.begin()},
       from.row->tenant, from.row->priority);
}

void PolicyOrder::PushNextRequest(const Head& from) {
  const auto next = std::next(from.request);
  if (next == from.lane->second->requests.end()) return;
  Push({.level = static_cast<int>(from.row->priority),
        .id = next->first,
        .row = from.row,
        .lane = from.lane,
        .request = next},
       from.row->tenant, from.row->priority);
}

bool PolicyOrder::Next(Candidate* candidate) {
  while (!heads_.empty()) {
    Head head = heads_.top();
    heads_.pop();
    const bool ready = head.row != nullptr && head.row->ready;
    if (head.row != nullptr && (ready ? stop_ready_ : stop_cold_)) continue;
    // Whoever comes after it may now be next, even if it has to go back itself.
    if (std::exchange(head.opens_row, false)) {
      PushRow(std::next(head.in_rows), view_.waiting->rows(head.row->priority, ready),
              static_cast<int>(head.row->priority));
    }
    if (ready && stopped_.contains(AccountKey{head.row->tenant, head.row->priority})) continue;
    if (std::exchange(head.opens_lane, false)) PushLane(head, std::next(head.lane));
    const TenantIndex tenant = head.row != nullptr ? head.row->tenant : head.running->tenant;
    const Priority its =
        head.row != nullptr ? head.row->priority : ClassOf(head.running->priority, policy_);
    const bool goes_last = head.level == 0 && (head.row != nullptr ? waiting_last_ : running_last_);
    if (goes_last || head.charged != ChargedTo(tenant, its)) {
      if (goes_last) head.level = kPriorities;
      Push(std::move(head), tenant, its);
      continue;
    }
    if (ready) PushNextRequest(head);
    *candidate = {
        .level = head.level,
        .running = head.running,
        .waiting = head.row != nullptr ? &head.request->second : nullptr,
        .adapter_state = head.row != nullptr ? head.lane->second->state : AdapterState::kNone};
    return true;
  }
  return false;
}

}  // namespace lorad
