// StepPipeline: the steps that the executor was given and that were not collected yet, oldest
// first, at most two: while the device runs one, the engine prepares the next. It keeps what a
// step's results are for, and what must stay until the step is over; each Sequence knows what the
// steps under way will add to it (Sequence::ahead).
//
// Pages. What a step under way reads or writes stays referenced until it is collected: by its
// sequences, which let go of their memory only when no step under way has them (Engine::LetGo), and
// by the step itself where a sequence's page was exchanged for an equal one meanwhile.
//
// Thread: the engine's only.
#pragma once

#include <deque>
#include <vector>

#include "absl/status/status.h"
#include "memory/base/clock.h"
#include "memory/page_pool.h"
#include "memory/prefix_cache.h"
#include "model/executor.h"
#include "server/engine_observer.h"
#include "server/sequence.h"

namespace lorad {

// One step, from its plan to its results.
struct EngineStep {
  struct Run {
    Sequence* sequence = nullptr;
    int tokens = 0;
    bool samples = false;
  };
  std::vector<Run> runs;  // as in the executor's input
  StepReport report;
  std::vector<PrefixCache::Lease> copy_leases;  // of the pages that are copied from
  PageList exchanged;                           // pages that sequences gave up meanwhile
  TimePoint begun;                              // the executor could begin then
  std::vector<SequenceResult> results;          // once it is collected
};

class StepPipeline {
 public:
  explicit StepPipeline(Executor* executor) : executor_(executor) {}

  bool empty() const { return under_way_.empty(); }
  size_t depth() const { return under_way_.size(); }
  EngineStep& newest() { return under_way_.back(); }
  const std::deque<EngineStep>& steps() const { return under_way_; }

  // Gives a step to the executor. An error: the device is broken.
  absl::Status Submit(const StepInput& input, EngineStep step);
  // True: the newest step may be followed by another before it is collected, because the executor
  // overlaps and draws all its samples.
  bool MayBeFollowed() const;
  // Waits for the oldest step. What it adds to its sequences is the caller's to enter.  REQUIRES:
  // !empty().
  absl::Status Collect(EngineStep* step);
  // Takes the oldest step back without results: the device is broken.
  EngineStep Abandon();

 private:
  EngineStep TakeOldest();

  Executor* const executor_;
  std::deque<EngineStep> under_way_;
};

}  // namespace lorad
