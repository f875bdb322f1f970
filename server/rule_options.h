// RuleOptions: the options that tune the scheduler's rules (scheduler/policy.h), for operators
// whose load is unlike most. What they leave alone is as the policy has it.
#pragma once

#include <functional>
#include <string>

#include "scheduler/policy.h"

namespace CLI {
class App;
}

namespace lorad {

class RuleOptions {
 public:
  // Adds them to the command line and the file; they are read into this object.
  void AddTo(CLI::App& app);
  // Calls require(whether it is so, what is wrong if not).
  void Check(const std::function<void(bool, std::string)>& require) const;
  // REQUIRES: checked.
  void Apply(SchedulerPolicy* policy) const;

 private:
  SchedulerPolicy rules_;  // durations apart
  double ageing_s_ = Seconds(rules_.ageing);
  double max_overtaken_s_ = Seconds(rules_.max_overtaken_time);
  double parking_delay_s_ = Seconds(rules_.parking_delay);
};

}  // namespace lorad
