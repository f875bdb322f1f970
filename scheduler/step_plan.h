// StepPlan: what the next step does. The planner fills it in, the engine carries it out in the
// order of its members.
#pragma once

#include <cstdint>
#include <vector>

#include "scheduler/waiting_request.h"

namespace lorad {

struct StepPlan {
  struct Load {
    AdapterVersionId adapter = 0;
    RequestId request = 0;  // the first that waits for it
    bool operator==(const Load&) const = default;
  };
  struct Run {
    RequestId id = 0;
    int tokens = 0;          // to compute this step
    uint32_t new_pages = 0;  // to add to the sequence's table before
    bool operator==(const Run&) const = default;
  };
  std::vector<RequestId> preempt;
  std::vector<RequestId> admit;  // each is also in `run`
  std::vector<Load> load;
  std::vector<Run> run;           // decodes by arrival, then prompts in the order of the policy
  std::vector<RequestId> refuse;  // will never fit into the pages that can be had

  void Clear();
  bool operator==(const StepPlan&) const = default;
};

}  // namespace lorad
