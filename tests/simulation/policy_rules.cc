#include "tests/simulation/policy_rules.h"

#include <chrono>
#include <limits>

namespace lorad::sim {

std::vector<PolicyRule> PolicyRules() {
  return {
      {"tuning", "steps are shorter where tokens would come further apart than the objective says",
       [](SchedulerPolicy* p) { p->tune_steps = false; }},
      {"fairness", "tenants by what they have had",
       [](SchedulerPolicy* p) { p->fair_tenants = false; }},
      {"priorities", "classes by urgency", [](SchedulerPolicy* p) { p->priorities = false; }},
      {"ageing", "classes that were passed over become more urgent",
       [](SchedulerPolicy* p) { p->ageing = Duration::zero(); }},
      {"lower-share", "a share of each step is kept from the most urgent class",
       [](SchedulerPolicy* p) { p->lower_class_share = 0; }},
      {"forecast", "who is let in has room for all of its output, so that nobody is preempted",
       [](SchedulerPolicy* p) { p->admission = AdmissionMode::kPromptOnly; }},
      {"backfill", "who does not fit has room reserved, and others go before it meanwhile",
       [](SchedulerPolicy* p) { p->backfill = false; }},
      {"pinning", "who was overtaken too often has room kept for its adapter",
       [](SchedulerPolicy* p) {
         p->max_overtakes = std::numeric_limits<int>::max();
         p->max_overtaken_time = std::chrono::hours(1000000);
       }},
      {"draining", "for whom an adapter in use is drained",
       [](SchedulerPolicy* p) { p->drain_tolerance = 0; }},
      {"keeping", "adapters of the next requests stay while others are loaded",
       [](SchedulerPolicy* p) { p->kept_requests = 0; }},
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
