// Time as a value that can be faked. Monotonic; only differences mean anything. Thread-safe.
#pragma once

#include <chrono>

namespace lorad {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint Now() const = 0;
};

class SteadyClock final : public Clock {
 public:
  TimePoint Now() const override { return std::chrono::steady_clock::now(); }
};

inline double Seconds(Duration d) { return std::chrono::duration<double>(d).count(); }
// REQUIRES: it is less than 292 years.
inline Duration FromSeconds(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

}  // namespace lorad
