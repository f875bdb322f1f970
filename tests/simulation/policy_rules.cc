#include "tests/simulation/policy_rules.h"

#include <limits>

namespace lorad::sim {

std::vector<PolicyRule> PolicyRules() {
  return {
      {"tuning", "steps are shorter where tokens would come further apart than the objective says",
       [](SchedulerPolicy* p) { p->tune_steps = false; }},
      {"fairness", "tenants by what they have had",
       [](SchedulerPolicy* p) { p->fair_tenants = false; }},
      {"places", "the last places are for tenants below their share",
       [](SchedulerPolicy* p) { p->kept_places_share = 0; }},
      {"priorities", "classes by urgency", [](SchedulerPolicy* p) { p->priorities = false; }},
      {"ageing", "classes that were passed over become more urgent",
       [](SchedulerPolicy* p) { p->ageing = Duration::zero(); }},
      {"lower-share", "a share of each step is kept from the most urgent class",
       [](SchedulerPolicy* p) { p->lower_class_share = 0; }},
      {"forecast", "who is let in has room for all of its output, so that nobody is preempted",
       [](SchedulerPolicy* p) { p->admission = AdmissionMode::kPromptOnly; }},
      {"backfill", "who does not fit has room reserved, and others go before it meanwhile",
       [](SchedulerPolicy* p) { p->backfill = false; }},
      {"backfill-bound", "only so many others go before one that does not fit",
       [](SchedulerPolicy* p) { p->max_backfills = std::numeric_limits<int>::max(); }},
      {"pinning", "who was overtaken too often has room kept for its adapter",
       [](SchedulerPolicy* p) {
         p->max_overtakes = SchedulerPolicy::kNeverPinned;
         p->max_overtaken_time = Duration::max();
       }},
      {"draining", "for whom an adapter in use is drained",
       [](SchedulerPolicy* p) { p->drain_tolerance = 0; }},
      {"keeping", "adapters of the next requests stay while others are loaded",
       [](SchedulerPolicy* p) { p->kept_requests = 0; }},
      {"giving-way", "less urgent work and slow readers make room",
       [](SchedulerPolicy* p) { p->give_way = false; }},
      {"preemption-bound", "who was preempted three times is not while there is another",
       [](SchedulerPolicy* p) { p->max_preemptions = std::numeric_limits<int>::max(); }},
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
