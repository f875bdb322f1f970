// StopSignal: while it lives, the first SIGINT or SIGTERM ends a wait instead of the program; the
// second ends the program as usual. At most one at a time.
#pragma once

#include <signal.h>

#include <chrono>

namespace lorad::loractl {

class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  // True at once when a signal came, now or before; false when the time is over.
  bool Wait(std::chrono::milliseconds time) const;

 private:
  int event_ = -1;  // an eventfd: readable once a signal came
  struct sigaction interrupt_before_ {};
  struct sigaction terminate_before_ {};
};

}  // namespace lorad::loractl
