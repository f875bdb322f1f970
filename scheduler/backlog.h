// Backlog: how much waits, and how much of it goes before a given request. It follows the order of
// service (scheduler/planner.h) without knowing whose turn is when: everything of a more urgent
// class goes first; within a class the first comer, but a tenant waits for others only in
// proportion to what it has queued itself.
//
// Each tenant and class counts what came and what went. What is before a request is what had come
// before it, less what has gone since, so a question costs the same whatever waits. Who leaves out
// of order (cancelled, overtaken) makes it less than it is: a bound from below.
//
// A value, without clock. Thread: the owner's.
#pragma once

#include <array>
#include <cstddef>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "scheduler/priority.h"

namespace lorad {

// An amount of waiting work.
struct Queued {
  double requests = 0;
  double tokens = 0;  // of prompts
  Queued& operator+=(const Queued& other);
  Queued& operator-=(const Queued& other);
  bool operator==(const Queued&) const = default;
};

class Backlog {
 public:
  // A request's place in the queue. Plain data, of this backlog only.
  struct Place {
    std::string tenant;
    double weight = 1;
    Priority priority = Priority::kStandard;
    Queued own;            // what it adds
    Queued class_before;   // that had come before it, ever
    Queued tenant_before;  // of its tenant and class, since the tenant last had nothing here
  };

  // The place that a request would have that came now. `weight`: of its tenant, > 0.
  Place Next(const std::string& tenant, double weight, Priority priority, int prompt_tokens) const;
  void Add(const Place& place);
  void Remove(const Place& place);  // REQUIRES: it was added.

  Queued Ahead(const Place& place) const;
  Queued total() const;
  size_t tenants() const { return tenants_.size(); }  // that have something here
  // What a tenant has here, of all classes.
  Queued Of(const std::string& tenant) const;

 private:
  struct Flow {
    Queued came, gone;
    Queued waiting() const;
    Queued before(const Queued& came_before) const;  // of that, what has not gone
  };
  struct Tenant {
    int requests = 0;
    std::array<Flow, kPriorities> flows;
  };
  struct Class {
    Flow flow;
    double weights = 0;  // of the tenants that have something in it
  };
  Tenant* Find(const std::string& tenant);
  const Tenant* Find(const std::string& tenant) const;

  std::array<Class, kPriorities> classes_;
  absl::flat_hash_map<std::string, Tenant> tenants_;  // those that have something
};

}  // namespace lorad
