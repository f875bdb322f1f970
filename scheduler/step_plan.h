// StepPlan: what the next step does. The planner fills it in, the engine carries it out in the
// order of its members.
#pragma once

#include <cstdint>
#include <vector>

#include "scheduler/step_budget.h"
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
    // Of `tokens`, the last ones: drafted, and to be verified by this step; those that it does not
    // confirm are computed in vain. None yet.
    int drafted_tokens = 0;
    // Its rows are for a backward pass, too, that trains the request's adapter. None yet.
    bool trains = false;
    bool operator==(const Run&) const = default;
  };
  struct Overtaken {
    RequestId id = 0;
    int times = 0;
    bool operator==(const Overtaken&) const = default;
  };
  StepBudget budget;               // what it was made with
  std::vector<RequestId> preempt;  // for want of pages
  // Who give up their places to a waiting request, that is admitted in the next step: because they
  // are less urgent, or their readers are slow.
  std::vector<RequestId> give_way;
  std::vector<RequestId> admit;  // each is also in `run`
  std::vector<Load> load;
  std::vector<Run> run;              // decodes by arrival, then prompts in the order of the policy
  std::vector<RequestId> refuse;     // will never fit into the pages that can be had
  std::vector<Overtaken> overtaken;  // those before whom others were admitted
  RequestId reserved_for = 0;        // who does not fit and has room reserved; 0: nobody
  AdapterVersionId draining = 0;     // for whoever is pinned; 0: none
  // Idle adapters that the next steps want: others go before them when room is made.
  std::vector<AdapterVersionId> keep;
  int pinned = 0;  // requests that were overtaken too often to be overtaken at their cost
  // Pages that may be taken beside all this, for what nobody waits for.
  uint32_t spare_pages = 0;

  void Clear();
  bool operator==(const StepPlan&) const = default;
};

}  // namespace lorad
