// The bound that scheduler/tenant_ledger.h promises (I7): of two tenants that both have requests
// waiting all the time, as long as these fit and their adapters are there, weighted service differs
// by at most 2 U, whatever their weights, requests, adapters and numbers. U is measured in the run.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "tests/unit/scheduler/traces/plan_trace.h"

namespace lorad {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kSteps = 300;
#else
constexpr int kSteps = 3000;
#endif

struct Tenant {
  double weight = 1;
  int waiting = 4;  // requests that it always has waiting
  int adapters = 0;
  int longest_prompt = 60, longest_output = 30;
  int comes_at = 0;  // step; it is idle before
};

class Contest {
 public:
  Contest(const SchedulerPolicy& policy, const std::vector<Tenant>& tenants, uint64_t seed)
      : random_(seed), tenants_(tenants), trace_(OptionsOf(policy, tenants)) {
    most_.resize(tenants.size() * tenants.size(), 0);
    least_ = most_;
    Warm();
  }

  void Run(int steps) {
    for (int step = 0; step < steps; ++step) {
      std::vector<int> waiting(tenants_.size(), 0);
      for (const auto& [id, s] : trace_.sequences()) waiting[s->request.tenant] += !s->running;
      for (size_t t = 0; t < tenants_.size(); ++t) {
        if (step < tenants_[t].comes_at) continue;
        if (step == tenants_[t].comes_at) Begin(t);
        for (int i = waiting[t]; i < tenants_[t].waiting; ++i) Arrive(t);
      }
      const absl::Status status = trace_.Step();
      ASSERT_TRUE(status.ok()) << status;
      for (size_t a = 0; a < tenants_.size(); ++a) {
        for (size_t b = 0; b < a; ++b) Look(a, b, step);
      }
    }
  }

  // Of all pairs and all times at which both had requests waiting: the most that the difference of
  // their service changed.
  double worst() const { return worst_; }
  double u() const { return trace_.most_outstanding(); }

 private:
  static PlanTrace::Options OptionsOf(const SchedulerPolicy& policy,
                                      const std::vector<Tenant>& tenants) {
    PlanTrace::Options o{.policy = policy, .pages = 4000, .prefix_cache = false};
    o.weights.clear();
    for (const Tenant& t : tenants) {
      o.weights.push_back(t.weight);
      o.adapter_pages.resize(o.adapter_pages.size() + static_cast<size_t>(t.adapters), 2);
    }
    return o;
  }
  // All adapters are there, and nobody has had anything to speak of.
  void Warm() {
    for (AdapterVersionId a = 1; a <= trace_.options().adapter_pages.size(); ++a) {
      trace_.Arrive({.adapter = a});
    }
    while (!trace_.sequences().empty()) {
      for (AdapterVersionId a : std::vector(trace_.loading())) trace_.FinishLoad(a, false);
      const absl::Status status = trace_.Step();
      ASSERT_TRUE(status.ok()) << status;
    }
  }
  int Pick(int n) { return static_cast<int>(random_() % static_cast<uint64_t>(n)); }
  void Arrive(size_t tenant) {
    const Tenant& t = tenants_[tenant];
    PlanTrace::Request r{.tenant = tenant};
    r.prompt.resize(static_cast<size_t>(1 + Pick(t.longest_prompt)), 1);
    r.output = r.max_output = 1 + Pick(t.longest_output);
    if (t.adapters > 0) {
      r.adapter = 1 + static_cast<AdapterVersionId>(Pick(t.adapters));
      for (size_t other = 0; other < tenant; ++other) {
        r.adapter += static_cast<AdapterVersionId>(tenants_[other].adapters);
      }
    }
    trace_.Arrive(std::move(r));
  }
  void Begin(size_t tenant) {
    for (size_t other = 0; other < tenants_.size(); ++other) {
      const size_t pair = std::max(tenant, other) * tenants_.size() + std::min(tenant, other);
      most_[pair] = least_[pair] =
          trace_.served(std::max(tenant, other)) - trace_.served(std::min(tenant, other));
    }
  }
  void Look(size_t a, size_t b, int step) {
    if (step < tenants_[a].comes_at || step < tenants_[b].comes_at) return;
    const size_t pair = a * tenants_.size() + b;
    const double difference = trace_.served(a) - trace_.served(b);
    most_[pair] = std::max(most_[pair], difference);
    least_[pair] = std::min(least_[pair], difference);
    worst_ = std::max(worst_, most_[pair] - least_[pair]);
  }

  std::mt19937_64 random_;
  const std::vector<Tenant> tenants_;
  PlanTrace trace_;
  std::vector<double> most_, least_;  // by pair
  double worst_ = 0;
};

struct Case {
  std::string name;
  std::vector<Tenant> tenants;
};

std::vector<Case> Cases() {
  return {
      {"Equal", {{}, {}}},
      {"Weights", {{.weight = 1}, {.weight = 2}, {.weight = 5}}},
      {"Flood", {{.waiting = 40}, {}, {}}},
      {"HundredAdapters", {{.waiting = 20, .adapters = 100}, {.adapters = 1}}},
      {"LongPrompts",
       {{.longest_prompt = 400, .longest_output = 3}, {.longest_prompt = 3, .longest_output = 60}}},
      {"LateComer", {{}, {.weight = 2}, {.comes_at = kSteps / 2}}},
  };
}

// What tenants compete for.
enum class Scarce { kTokens, kPlaces };

SchedulerPolicy PolicyOf(Scarce scarce, double kept_places_share) {
  const bool tokens = scarce == Scarce::kTokens;
  return {.max_step_tokens = tokens ? 24 : 500,
          .max_sequences = tokens ? 100 : 16,
          .max_chunk_tokens = tokens ? 16 : 500,
          .page_tokens = 8,
          .kept_places_share = kept_places_share};
}

class FairnessBound : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Contests, FairnessBound, testing::ValuesIn(Cases()),
                         [](const auto& c) { return c.param.name; });

TEST_P(FairnessBound, WeightedServiceDiffersByNoMoreThanTwoU) {
  for (const Scarce scarce : {Scarce::kTokens, Scarce::kPlaces}) {
    for (const double kept : {0.0, 1.0 / 8}) {
      SCOPED_TRACE(testing::Message() << (scarce == Scarce::kTokens ? "tokens" : "places")
                                      << " are scarce, of places are kept " << kept);
      const SchedulerPolicy policy = PolicyOf(scarce, kept);
      Contest contest(policy, GetParam().tenants, /*seed=*/1);
      contest.Run(kSteps);
      EXPECT_LE(contest.worst(), 2 * (contest.u() + (kept > 0 ? policy.max_step_tokens : 0)));
    }
  }
}

}  // namespace
}  // namespace lorad
