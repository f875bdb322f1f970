// AdaptersInStep: which adapters the running sequences use, those that this plan lets in included,
// and whether one more may join them. The only place where that is decided: the engine runs what
// was let in. Sequences of the base model use none.
#pragma once

#include <cstdint>

#include "absl/container/flat_hash_map.h"
#include "scheduler/planner_view.h"
#include "scheduler/policy.h"

namespace lorad {

class AdaptersInStep {
 public:
  explicit AdaptersInStep(const SchedulerPolicy& policy) : policy_(policy) {}

  // A sequence that runs and may go on for `left` tokens.
  void Use(AdapterVersionId adapter, uint64_t bytes, int left);
  bool in_use(AdapterVersionId adapter) const { return longest_left_.contains(adapter); }

  // Whether this request's adapter may be used, as far as the adapters go.
  bool Admits(const WaitingRequest& w) const;
  // A request has waited too long for its adapter: no other may join before it, and the one in use
  // that has least to do is drained for it.
  void MakeWayFor(const WaitingRequest& w);
  AdapterVersionId draining() const { return draining_; }

 private:
  const SchedulerPolicy& policy_;
  absl::flat_hash_map<AdapterVersionId, int> longest_left_;  // of those in use: tokens
  uint64_t bytes_ = 0;
  AdapterVersionId next_ = 0;  // who comes before all that are not in use; 0: nobody
  AdapterVersionId draining_ = 0;
  double drain_left_ = 0;
};

}  // namespace lorad
