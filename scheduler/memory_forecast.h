// MemoryForecast: how many pages the running sequences will take, at most, if each goes on to its
// end one token a step and gives its pages back then. The greatest sum is at one of the ends, so it
// is enough to look there (S-LoRA, Sheng et al., MLSys 2024, counts tokens this way: the running
// maximum over remaining lengths; here it is pages, exactly).
//
// A demand is what one sequence will be after the step that is planned. All in pages of the pool;
// adapters are not in here but in what the caller calls available. A value; no clock.
#pragma once

#include <cstdint>
#include <vector>

namespace lorad {

class MemoryForecast {
 public:
  struct Demand {
    int tokens = 0;        // known after the step
    int left = 0;          // steps that it goes on after it; its last token takes no room
    uint32_t held = 0;     // pages in its table during the step
    uint32_t returns = 0;  // of them, those that come back when it ends
    // It does not go on now: it may take all that it may ever need, and gives nothing back.
    bool stalled = false;
  };
  // From when on there is room for somebody, and for how much beside it.
  struct Opening {
    int64_t steps = 0;
    int64_t spare = 0;  // pages
  };

  explicit MemoryForecast(int page_tokens);

  void Add(const Demand& demand);
  // With `available` pages after the step (free or to be had), all that were added and `demand`
  // come to their ends.  REQUIRES: it is not stalled.
  bool Fits(const Demand& demand, int64_t available) const;
  // Pages that all that were added need at one time.
  int64_t Needed() const;
  // When `pages` could be given to somebody until the end of all that were added. Never: steps is
  // the greatest number there is, spare 0.
  Opening WhenFree(int64_t pages, int64_t available) const;

  // Pages that it lacks to come to its end.
  int64_t Lacking(const Demand& demand) const;

 private:
  // What is alive at a time: sums over the sequences that go on at least until then.
  class Alive;

  int64_t Peak(const Demand* more) const;

  const int page_tokens_;
  std::vector<Demand> demands_;  // not stalled, the longest left first
  int64_t returns_ = 0;          // of those
  int64_t stalled_ = 0;          // what the stalled may take
  int64_t lacking_ = 0;          // of all: more cannot be taken whoever gives back
};

}  // namespace lorad
