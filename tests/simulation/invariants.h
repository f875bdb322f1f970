// Invariants: what must hold after every step of a server, whatever the load. Numbers are those of
// the scheduler's research notes:
//   I1  no step exceeds a budget: tokens, sequences, chunk, distinct adapters' bytes
//   I2  every page is in one state, and no page holds what it must not (the executor looks);
//       after the last request none is a sequence's and no adapter is in use
//   I3  an accepted request ends, exactly once (SimulatedServer)
//   I4  progress: if there are requests, something runs or loads, or a slow reader is waited for
//   I5  bounded wait: while requests wait, within so many steps somebody is admitted for the first
//       time or ends as all that may run at a time take one after the other, each computed again as
//       often as it may be preempted. When whose turn comes depends on the workload
//   I9  output is what it would have been without preemption, chunks and shared pages, and nobody
//       is preempted where all outputs have room (SimulatedServer)
//   I14 all of this however many clients leave
// What one plan must keep (I6 overtaking, I8 work conserving) and what compares runs (I11, I13) is
// checked in tests/unit/scheduler/traces, I7 and I10 there too; here fairness is measured
// (fairness_meter.h, measurements.h) and asserted by tests, because its bounds depend on the
// workload.
//
// Thread: the simulation's only.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "memory/unified_pool.h"
#include "scheduler/planner.h"
#include "tests/simulation/simulated_executor.h"

namespace lorad::sim {

class Invariants {
 public:
  // `longest_request`: tokens that the longest one may come to; 0: I5 is not checked.
  Invariants(const SchedulerPolicy& policy, const UnifiedPool* pool, int longest_request = 0);

  // What a server knows after one call of Engine::Step. An error names the invariant.
  struct AfterStep {
    bool ran = false;           // a step was submitted or collected
    bool loads = false;         // adapters are on their way
    bool slow_readers = false;  // have tokens that they have not taken
    int unfinished = 0;
    int waiting = 0;
    uint64_t moves = 0;  // first admissions and ends so far
  };
  absl::Status Check(const AfterStep& after, const SimulatedExecutor& executor);
  // When every request has ended.
  absl::Status CheckDrained() const;

 private:
  const SchedulerPolicy policy_;
  const UnifiedPool* const pool_;
  uint64_t checked_steps_ = 0;
  const uint64_t most_still_;  // steps in a row without a move; 0: any
  uint64_t moves_ = 0;
  uint64_t still_ = 0;
  int idle_ = 0;  // steps in a row that ran nothing although something waits
};

}  // namespace lorad::sim
