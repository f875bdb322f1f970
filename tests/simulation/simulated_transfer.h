// SimulatedTransfer: an image on its way into pages, which ends at a virtual time.
#pragma once

#include "kernels/backend.h"
#include "tests/simulation/virtual_clock.h"

namespace lorad::sim {

class SimulatedTransfer final : public kernels::AdapterTransfer {
 public:
  SimulatedTransfer(const VirtualClock* clock, TimePoint end) : clock_(clock), end_(end) {}

  bool Done() const override { return clock_->Now() >= end_; }
  absl::Status Wait() override { return absl::OkStatus(); }  // whoever reads it has waited
  TimePoint end() const { return end_; }

 private:
  const VirtualClock* const clock_;
  const TimePoint end_;
};

}  // namespace lorad::sim
