// PolicyRules: the rules of SchedulerPolicy by name, each with what switches it off, so that the
// simulator can show what a rule is worth. Pure.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "scheduler/policy.h"

namespace lorad::sim {

struct PolicyRule {
  const char* name;
  const char* explanation;
  void (*switch_off)(SchedulerPolicy* policy);
};

std::vector<PolicyRule> PolicyRules();
// False: there is no such rule. `fcfs` is all of them.
bool SwitchOff(std::string_view rule, SchedulerPolicy* policy);

}  // namespace lorad::sim
