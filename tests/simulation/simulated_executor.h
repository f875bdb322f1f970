// SimulatedExecutor: runs steps without computing: virtual time passes as the cost model says and
// tokens come from chains (token_chain.h) that lie in the pages where keys and values would. A step
// reads and writes what a real one would, one slot instead of all where reading all would be slow,
// so wrong pages are found: in the outputs, or here.
//
// Thread: the simulation's only.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "memory/adapter_cache.h"
#include "model/executor.h"
#include "tests/simulation/cost_model.h"
#include "tests/simulation/virtual_clock.h"

namespace lorad::sim {

// What was in a step, for those who check the plan's budgets.
struct StepFacts {
  int rows = 0;
  int sequences = 0;
  int longest_chunk = 0;  // of a prefill
  int decodes = 0;
  int adapters = 0;  // distinct
  uint64_t adapter_bytes = 0;
  double seconds = 0;
};

class SimulatedExecutor final : public Executor {
 public:
  // `cost` is borrowed. Adapter version ids are in [1, adapters].
  SimulatedExecutor(const CostModel& cost, VirtualClock* clock, uint32_t pages, int adapters);

  absl::Status Submit(const StepInput& input) override;
  absl::Status Collect(std::vector<SequenceResult>* results) override;
  bool Overlaps() const override { return cost_.overlaps; }
  bool CanDraw(const SamplingParams& params) const override {
    return cost_.overlaps && params.logprobs < 0;
  }

  // Steps from now on take so many times as long.
  void SetSlowdown(double times) { slowdown_ = times; }
  // A loader has written the adapter's image there.
  void PlaceAdapter(AdapterVersionId id, std::span<const uint32_t> pages);

  uint64_t steps() const { return steps_; }
  double busy_s() const { return busy_s_; }
  const StepFacts& last_step() const { return last_; }  // that was submitted
  // The first sign that a page holds what it must not; empty: none.
  const std::string& fault() const { return fault_; }

 private:
  struct Slot {
    uint64_t chain = 0;
    TokenId token = -1;
  };
  struct Step {
    TimePoint end;
    std::vector<SequenceResult> results;
  };

  // What the sequence says after its tokens, if it is asked; adds what that takes to `shape`.
  SequenceResult Run(const SequenceInput& s, StepShape* shape);
  AdapterVersionId AdapterOf(const SequenceInput& s, StepShape* shape);
  void CheckLink(const SequenceInput& s);
  TimePoint TransfersEnd(const StepInput& input) const;
  Slot& SlotAt(std::span<const uint32_t> kv_pages, int position) {
    return slots_[size_t{kv_pages[static_cast<size_t>(position / cost_.page_tokens)]} *
                      static_cast<size_t>(cost_.page_tokens) +
                  static_cast<size_t>(position % cost_.page_tokens)];
  }
  void Fault(std::string what);

  const CostModel& cost_;
  VirtualClock* const clock_;
  std::vector<Slot> slots_;               // [pages * page_tokens]
  std::vector<AdapterVersionId> images_;  // [pages]: whose image lies there, if anybody's
  std::vector<uint64_t> used_in_;         // [adapters + 1]: the last step that it was in
  std::vector<TokenId> last_tokens_;      // of the step submitted last, by sequence
  std::deque<Step> under_way_;
  TimePoint free_;  // when the device has done all it was given
  uint64_t steps_ = 0;
  double busy_s_ = 0;
  double slowdown_ = 1;
  StepFacts last_;
  std::string fault_;
};

}  // namespace lorad::sim
