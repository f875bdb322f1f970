#include "scheduler/waiting_queue.h"

#include <fmt/format.h>

#include <algorithm>

#include "memory/base/check.h"

namespace lorad {

uint64_t WaitingQueue::CounterOf(const Row& row) const {
  return policy_.fair_tenants ? ledger_.counter(row.tenant, row.priority) : 0;
}

void WaitingQueue::List(Row* row) {
  row->place = {CounterOf(*row), row->head().id};
  rows_[static_cast<size_t>(row->priority)][row->ready ? 1 : 0].emplace(row->place, row);
}

void WaitingQueue::Unlist(const Row& row) {
  rows_[static_cast<size_t>(row.priority)][row.ready ? 1 : 0].erase(row.place);
}

void WaitingQueue::Attach(const Lane& lane) {
  const RowKey key{lane.priority, lane.tenant, lane.ready()};
  std::unique_ptr<Row>& row = by_key_[key];
  if (row == nullptr) {
    row = std::make_unique<Row>(
        Row{.priority = lane.priority, .tenant = lane.tenant, .ready = lane.ready()});
  } else {
    Unlist(*row);
  }
  row->lanes.emplace(lane.head(), &lane);
  List(row.get());
}

void WaitingQueue::Detach(const Lane& lane) {
  const auto found = by_key_.find(RowKey{lane.priority, lane.tenant, lane.ready()});
  Row* row = found->second.get();
  Unlist(*row);
  row->lanes.erase(lane.head());
  if (row->lanes.empty()) {
    by_key_.erase(found);
  } else {
    List(row);
  }
}

void WaitingQueue::Add(const WaitingRequest& request, AdapterState state, TimePoint now) {
  LORAD_CHECK(!lane_of_.contains(request.id));
  WaitingRequest entry = request;
  entry.priority = ClassOf(request.priority, policy_);
  std::unique_ptr<Lane>& lane = lanes_[LaneKey{entry.priority, entry.tenant, entry.adapter}];
  if (lane == nullptr) {
    lane = std::make_unique<Lane>(Lane{.priority = entry.priority,
                                       .tenant = entry.tenant,
                                       .adapter = entry.adapter,
                                       .state = state});
    if (entry.adapter != 0) lanes_of_[entry.adapter].push_back(lane.get());
  }
  LORAD_CHECK(lane->state == state);
  lane_of_[entry.id] = lane.get();
  const auto its = static_cast<size_t>(entry.priority);
  if (waiting_[its]++ == 0) passed_over_since_[its] = now;
  // Most come last, and change nothing of their lane's place.
  const bool first = lane->requests.empty() || entry.id < lane->head();
  if (first && !lane->requests.empty()) Detach(*lane);
  lane->requests.emplace(entry.id, entry);
  if (first) Attach(*lane);
}

void WaitingQueue::Admit(RequestId id, TimePoint now) {
  passed_over_since_[static_cast<size_t>(lane_of_.at(id)->priority)] = now;
  Remove(id);
}

void WaitingQueue::Remove(RequestId id) {
  const auto found = lane_of_.find(id);
  LORAD_CHECK(found != lane_of_.end());
  Lane* lane = found->second;
  lane_of_.erase(found);
  --waiting_[static_cast<size_t>(lane->priority)];
  const bool first = lane->head() == id;
  if (first) Detach(*lane);
  lane->requests.erase(id);
  if (!lane->requests.empty()) {
    if (first) Attach(*lane);
    return;
  }
  if (const auto of = lanes_of_.find(lane->adapter); of != lanes_of_.end()) {
    std::erase(of->second, lane);
    if (of->second.empty()) lanes_of_.erase(of);
  }
  lanes_.erase(LaneKey{lane->priority, lane->tenant, lane->adapter});
}

void WaitingQueue::SetAdapterState(AdapterVersionId adapter, AdapterState state) {
  const auto found = lanes_of_.find(adapter);
  if (found == lanes_of_.end()) return;
  for (Lane* lane : found->second) {
    Detach(*lane);
    lane->state = state;
    Attach(*lane);
  }
}

void WaitingQueue::Overtake(RequestId id, int times, TimePoint now) {
  WaitingRequest& request = lane_of_.at(id)->requests.at(id);
  if (request.overtakes == 0) request.overtaken_since = now;
  request.overtakes += times;
}

void WaitingQueue::Reprice(TenantIndex tenant, Priority priority) {
  for (const bool ready : {false, true}) {
    const auto found = by_key_.find(RowKey{ClassOf(priority, policy_), tenant, ready});
    if (found == by_key_.end()) continue;
    Row* row = found->second.get();
    if (CounterOf(*row) == row->place.first) continue;
    Unlist(*row);
    List(row);
  }
}

int WaitingQueue::FirstLevel(Priority priority, TimePoint now) const {
  const auto its = static_cast<int64_t>(priority);
  const TimePoint since = passed_over_since_[static_cast<size_t>(its)];
  if (!policy_.priorities || policy_.ageing <= Duration::zero() || now <= since) {
    return static_cast<int>(its);
  }
  return static_cast<int>(its - std::min(its, (now - since) / policy_.ageing));
}

const WaitingRequest* WaitingQueue::Find(RequestId id) const {
  const auto found = lane_of_.find(id);
  return found == lane_of_.end() ? nullptr : &found->second->requests.find(id)->second;
}

std::vector<RequestId> WaitingQueue::WaitingFor(AdapterVersionId adapter) const {
  std::vector<RequestId> ids;
  const auto found = lanes_of_.find(adapter);
  if (found == lanes_of_.end()) return ids;
  for (const Lane* lane : found->second) {
    for (const auto& [id, request] : lane->requests) ids.push_back(id);
  }
  return ids;
}

absl::Status WaitingQueue::Validate() const {
  size_t requests = 0, lanes = 0, listed = 0;
  for (const auto& [key, row] : by_key_) {
    const auto wrong = [&r = *row](const char* what) {
      return absl::InternalError(fmt::format("waiting queue: the row of tenant {}, class {} {}",
                                             r.tenant, static_cast<int>(r.priority), what));
    };
    if (row->lanes.empty()) return wrong("is empty");
    const Rows& rows_of_class = rows(row->priority, row->ready);
    const auto place = rows_of_class.find(row->place);
    if (place == rows_of_class.end() || place->second != row.get()) return wrong("is not listed");
    if (row->place != Row::Place{CounterOf(*row), row->head().id}) return wrong("is out of place");
    for (const auto& [head, lane] : row->lanes) {
      if (lane->requests.empty() || lane->head() != head || lane->ready() != row->ready ||
          lane->tenant != row->tenant || lane->priority != row->priority) {
        return wrong("has a lane that is not its own");
      }
      requests += lane->requests.size();
    }
    lanes += row->lanes.size();
  }
  for (const auto& of_class : rows_) listed += of_class[0].size() + of_class[1].size();
  if (requests != lane_of_.size() || lanes != lanes_.size() || listed != by_key_.size()) {
    return absl::InternalError(
        fmt::format("waiting queue: {} requests in {} lanes of {} listed rows, but {} in {} of {}",
                    requests, lanes, listed, lane_of_.size(), lanes_.size(), by_key_.size()));
  }
  return absl::OkStatus();
}

}  // namespace lorad
