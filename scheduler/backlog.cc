#include "scheduler/backlog.h"

#include <algorithm>

#include "memory/base/check.h"

namespace lorad {
namespace {

constexpr size_t IndexOf(Priority priority) { return static_cast<size_t>(priority); }

Queued Least(const Queued& a, const Queued& b) {
  return {.requests = std::min(a.requests, b.requests), .tokens = std::min(a.tokens, b.tokens)};
}

}  // namespace

Queued& Queued::operator+=(const Queued& other) {
  requests += other.requests;
  tokens += other.tokens;
  return *this;
}

Queued& Queued::operator-=(const Queued& other) {
  requests -= other.requests;
  tokens -= other.tokens;
  return *this;
}

Queued Backlog::Flow::waiting() const { return before(came); }

Queued Backlog::Flow::before(const Queued& came_before) const {
  return {.requests = std::max(0.0, came_before.requests - gone.requests),
          .tokens = std::max(0.0, came_before.tokens - gone.tokens)};
}

const Backlog::Tenant* Backlog::Find(const std::string& tenant) const {
  const auto found = tenants_.find(tenant);
  return found == tenants_.end() ? nullptr : &found->second;
}

Backlog::Place Backlog::Next(const std::string& tenant, double weight, Priority priority,
                             int prompt_tokens) const {
  const Tenant* known = Find(tenant);
  const size_t c = IndexOf(priority);
  return {.tenant = tenant,
          .weight = weight,
          .priority = priority,
          .own = {.requests = 1, .tokens = static_cast<double>(prompt_tokens)},
          .class_before = classes_[c].flow.came,
          .tenant_before = known == nullptr ? Queued() : known->flows[c].came};
}

void Backlog::Add(const Place& place) {
  Class& c = classes_[IndexOf(place.priority)];
  Tenant& tenant = tenants_[place.tenant];
  Flow& flow = tenant.flows[IndexOf(place.priority)];
  if (flow.waiting().requests == 0) c.weights += place.weight;
  ++tenant.requests;
  flow.came += place.own;
  c.flow.came += place.own;
}

void Backlog::Remove(const Place& place) {
  Class& c = classes_[IndexOf(place.priority)];
  const auto tenant = tenants_.find(place.tenant);
  LORAD_CHECK(tenant != tenants_.end());
  Flow& flow = tenant->second.flows[IndexOf(place.priority)];
  flow.gone += place.own;
  c.flow.gone += place.own;
  if (flow.waiting().requests == 0) c.weights -= place.weight;
  if (--tenant->second.requests == 0) tenants_.erase(tenant);
}

Queued Backlog::Ahead(const Place& place) const {
  const Class& c = classes_[IndexOf(place.priority)];
  Queued ahead = c.flow.before(place.class_before);
  Queued fair = place.tenant_before;
  if (const Tenant* tenant = Find(place.tenant); tenant != nullptr) {
    fair = tenant->flows[IndexOf(place.priority)].before(place.tenant_before);
  }
  // While one of its tokens is computed, each other tenant gets its share too.
  const double shares = std::max(1.0, c.weights / place.weight);
  fair.requests *= shares;
  fair.tokens *= shares;
  ahead = Least(ahead, fair);
  for (size_t urgent = 0; urgent < IndexOf(place.priority); ++urgent) {
    ahead += classes_[urgent].flow.waiting();
  }
  return ahead;
}

Queued Backlog::total() const {
  Queued sum;
  for (const Class& c : classes_) sum += c.flow.waiting();
  return sum;
}

Queued Backlog::Of(const std::string& tenant) const {
  Queued sum;
  const Tenant* known = Find(tenant);
  if (known == nullptr) return sum;
  for (const Flow& flow : known->flows) sum += flow.waiting();
  return sum;
}

}  // namespace lorad
