// RandomTrace: a PlanTrace drawn from a seed: policy, pool, adapters, tenants, and at every step
// some who come, leave, read slowly or see their adapters load or fail. Each feature is off in many
// of them, so that they cannot hide each other.
#pragma once

#include <cstdint>
#include <random>
#include <string>

#include "absl/status/status.h"
#include "tests/unit/scheduler/traces/plan_trace.h"

namespace lorad {

class RandomTrace {
 public:
  // `ledger_floor`: see PlanTrace; the only thing in which traces of one seed may differ.
  explicit RandomTrace(uint64_t seed, uint64_t ledger_floor = 0);

  // So many steps, and then those that it takes until nobody is left.  Error: what broke, in which
  // step of what.
  absl::Status Run(int steps);

  const PlanTrace& trace() const { return trace_; }

 private:
  // How much goes on.
  struct Shape {
    double arrivals = 0.5;  // a step, at the most
    int most_waiting = 40;
    int longest_prompt = 60, longest_output = 30;
    double cancel_share = 0, pause_share = 0, fail_share = 0;
    double load_share = 0.5;  // of loads under way that end in a step
    double shared_share = 0;  // of prompts that begin like others
    bool all_classes = false;
  };

  static PlanTrace::Options DrawOptions(std::mt19937_64* random, uint64_t ledger_floor);
  Shape DrawShape();
  int Pick(int n) { return static_cast<int>(random_() % static_cast<uint64_t>(n)); }
  bool Chance(double share) { return static_cast<double>(random_() >> 11) * 0x1.0p-53 < share; }
  void Arrive();
  void Disturb(bool draining);

  std::mt19937_64 random_;
  PlanTrace trace_;
  const Shape shape_;
};

}  // namespace lorad
