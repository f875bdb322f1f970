#include "server/step_pipeline.h"

#include <algorithm>
#include <utility>

#include "memory/base/check.h"

namespace lorad {

absl::Status StepPipeline::Submit(const StepInput& input, EngineStep step) {
  for (size_t i = 0; i < step.runs.size(); ++i) {
    const EngineStep::Run& run = step.runs[i];
    Sequence::Ahead& ahead = run.sequence->ahead;
    ++ahead.steps;
    ahead.computed += run.tokens;
    ahead.sampled += run.samples ? 1 : 0;
    ahead.place = static_cast<int>(i);
  }
  under_way_.push_back(std::move(step));
  return executor_->Submit(input);
}

bool StepPipeline::MayBeFollowed() const {
  if (!executor_->Overlaps() || empty()) return false;
  const std::vector<EngineStep::Run>& runs = under_way_.back().runs;
  return std::all_of(runs.begin(), runs.end(), [](const EngineStep::Run& run) {
    return !run.sequence->request->score && (!run.samples || run.sequence->drawn);
  });
}

absl::Status StepPipeline::Collect(EngineStep* step) {
  LORAD_CHECK(!empty());
  std::vector<SequenceResult> results;
  const absl::Status status = executor_->Collect(&results);
  if (!status.ok()) return status;
  *step = TakeOldest();
  step->results = std::move(results);
  return status;
}

EngineStep StepPipeline::Abandon() { return TakeOldest(); }

EngineStep StepPipeline::TakeOldest() {
  LORAD_CHECK(!empty());
  EngineStep step = std::move(under_way_.front());
  under_way_.pop_front();
  for (const EngineStep::Run& run : step.runs) {
    Sequence::Ahead& ahead = run.sequence->ahead;
    --ahead.steps;
    ahead.computed -= run.tokens;
    ahead.sampled -= run.samples ? 1 : 0;
  }
  return step;
}

}  // namespace lorad
