// StepRates: what work costs here, learnt from what was done. Recent steps count most. Beside the
// cost of steps (scheduler/step_cost.h) it learns which share of prompts must be computed (the
// prefix cache has the rest) and which share of the output that they may make requests do make.
//
// At the start it overestimates: all of a step's time is its rows', prompts are computed whole,
// outputs are as long as they may be. Nobody may be refused for what it says until it is
// Trusted.
//
// A value, without clock: who runs steps tells it. Thread: the owner's.
#pragma once

#include <optional>

#include "memory/base/clock.h"
#include "scheduler/step_cost.h"

namespace lorad {

class StepRates {
 public:
  // Fewer steps with prompt tokens than this say nothing.
  static constexpr int kFewestSteps = 8;
  // Nor does what was measured longer ago: if a passing slowness had everybody refused, nothing
  // would be measured any more.
  static constexpr Duration kFresh = std::chrono::seconds(10);

  // A step ended: its rows, its time on the wall.
  void AddStep(int prefill_tokens, int decode_tokens, double seconds, TimePoint now);
  // Prompts were admitted: of so many tokens the cache had so many.
  void AddPrompts(int tokens, int cached_tokens);
  // A request made so many of the output tokens that it was allowed. Not for those that were
  // cancelled.
  void AddOutput(int tokens, int max_tokens);

  // An adapter's load ended. What it cost is the adapter cache's to know.
  void NoteLoad(TimePoint now);

  // As of late: the fit knows many steps and follows slowly, so it is scaled by what the last ones
  // took of what it says.
  StepCost cost() const;
  // As the fit says, so that what is tuned by it does not swing; once prompts and decode were both
  // seen often enough.
  std::optional<StepCost> Fitted() const;
  // A step's seconds of late, whatever was in it.
  double recent_step() const { return recent_.y; }
  bool Trusted(TimePoint now) const {
    return prefills_ >= kFewestSteps && now - last_prefill_ <= kFresh;
  }
  // Loads are measured apart: who refuses all that need one sees no more of them.
  bool LoadsTrusted(TimePoint now) const { return loads_ > 0 && now - last_load_ <= kFresh; }
  double computed_share() const { return computed_.ratio(); }  // of prompt tokens, (0, 1]
  double output_share() const { return output_.ratio(); }      // of max_tokens, (0, 1]

 private:
  // Means of pairs that belong together; recent ones count most.
  struct Means {
    double x = 0, y = 0;
    int count = 0;
    void Add(double new_x, double new_y);
    double ratio() const { return count == 0 || x <= 0 ? 1 : y / x; }
  };
  StepCostFit fit_;
  Means pace_;                      // seconds that the fit said, seconds
  int prefills_ = 0, decodes_ = 0;  // steps that mostly are this or that
  Means recent_;                    // rows, seconds; of all steps
  Means computed_;                  // prompt tokens, of them computed
  Means output_;                    // allowed, made
  TimePoint last_prefill_;
  int loads_ = 0;
  TimePoint last_load_;
};

}  // namespace lorad
