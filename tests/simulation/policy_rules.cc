#include "tests/simulation/policy_rules.h"

namespace lorad::sim {

std::vector<PolicyRule> PolicyRules() {
  return {
      {"fairness", "tenants by what they have had",
       [](SchedulerPolicy* p) { p->fair_tenants = false; }},
      {"priorities", "classes by urgency", [](SchedulerPolicy* p) { p->priorities = false; }},
      {"ageing", "classes that were passed over become more urgent",
       [](SchedulerPolicy* p) { p->ageing = Duration::zero(); }},
      {"lower-share", "a share of each step is kept from the most urgent class",
       [](SchedulerPolicy* p) { p->lower_class_share = 0; }},
  };
}

bool SwitchOff(std::string_view rule, SchedulerPolicy* policy) {
  if (rule == "fcfs") {
    *policy = PlainFcfs(*policy);
    return true;
  }
  for (const PolicyRule& known : PolicyRules()) {
    if (rule != known.name) continue;
    known.switch_off(policy);
    return true;
  }
  return false;
}

}  // namespace lorad::sim
