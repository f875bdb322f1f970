// OutputShare: how much of the output that they may make sequences are expected to make. Nobody
// knows, so it is found out as SGLang does (srt/managers/schedule_policy.py, new_token_ratio): it
// falls slowly while all goes well and rises when somebody had to be preempted. A value.
#pragma once

#include <algorithm>

#include "scheduler/policy.h"

namespace lorad {

class OutputShare {
 public:
  explicit OutputShare(const SchedulerPolicy& policy)
      : first_(policy.first_output_share),
        least_(std::min(policy.least_output_share, first_)),
        step_((first_ - least_) / std::max(1, policy.output_share_steps)),
        share_(first_) {}

  double share() const { return share_; }
  void AfterStep(int preemptions) {
    // Half the way back to where it began: a few preemptions undo it all.
    share_ = preemptions > 0 ? share_ + (first_ - share_) / 2 : std::max(least_, share_ - step_);
  }

 private:
  const double first_, least_, step_;
  double share_;
};

}  // namespace lorad
