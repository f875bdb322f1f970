// VirtualClock: the time of one simulated server. It passes only when somebody says so.
#pragma once

#include <algorithm>

#include "memory/base/clock.h"

namespace lorad::sim {

// From the start of a simulation to time as the engine knows it, and back.
inline TimePoint At(double seconds) { return TimePoint(FromSeconds(seconds)); }
inline Duration For(double seconds) { return FromSeconds(seconds); }
inline double SecondsAt(TimePoint t) { return Seconds(t.time_since_epoch()); }

class VirtualClock final : public Clock {
 public:
  TimePoint Now() const override { return now_; }
  void Advance(Duration d) { now_ += d; }
  void AdvanceTo(TimePoint t) { now_ = std::max(now_, t); }  // it never goes back

 private:
  TimePoint now_{};
};

}  // namespace lorad::sim
