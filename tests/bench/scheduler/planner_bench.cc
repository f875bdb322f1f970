// bench_planner: what a plan costs with 256 sequences running and many requests waiting, of many
// tenants and adapters. Measured is the planner with its walk; not the engine's search for known
// prompts, which is asked here and answered at once.
#include <benchmark/benchmark.h>

#include <random>
#include <string>
#include <vector>

#include "scheduler/planner.h"

namespace lorad {
namespace {

constexpr int kRunning = 256;
constexpr int kTenants = 1000;
constexpr AdapterVersionId kAdapters = 2000, kResident = 200;

class NothingKnown final : public PlannerFacts {
 public:
  KnownPrefix PrefixOf(RequestId) const override { return {}; }
  bool IsIdle(AdapterVersionId adapter) const override { return adapter % 2 == 0; }
};

// `places`: that are free. `pages`: that are free.
void BM_Plan(benchmark::State& state) {
  const int waiting = static_cast<int>(state.range(0));
  const int places = static_cast<int>(state.range(1));
  const auto pages = static_cast<uint32_t>(state.range(2));
  const auto mode = static_cast<AdmissionMode>(state.range(3));
  SchedulerPolicy policy{.max_step_tokens = 2048,
                         .max_sequences = kRunning + places,
                         .max_chunk_tokens = 512,
                         .max_adapter_loads = 4};
  policy.admission = mode;
  std::mt19937 random(1);
  const auto pick = [&random](int from, int to) {
    return from + static_cast<int>(random() % static_cast<uint32_t>(to - from));
  };
  TenantLedger ledger(policy);
  WaitingQueue queue(&policy, &ledger);
  std::vector<TenantIndex> tenants;
  for (int t = 0; t < kTenants; ++t) {
    tenants.push_back(ledger.Arrive(std::to_string(t), 1, Priority::kStandard));
    ledger.Charge(tenants.back(), Priority::kStandard, {.input = pick(0, 1000)});
  }
  std::vector<RunningView> running;
  for (RequestId id = 1; id <= kRunning; ++id) {
    const int known = pick(8, 1024);
    const auto held = static_cast<int>(PagesFor(static_cast<size_t>(known), policy.page_tokens));
    running.push_back({.id = id,
                       .tenant = tenants[static_cast<size_t>(pick(0, kTenants))],
                       .adapter = 1 + static_cast<AdapterVersionId>(pick(0, kResident)),
                       .known_tokens = known,
                       .computed_tokens = known - 1,
                       .left_tokens = pick(1, 512),
                       .held_pages = held,
                       .releasable_pages = held});
  }
  for (int i = 0; i < waiting; ++i) {
    const auto adapter = 1 + static_cast<AdapterVersionId>(pick(0, static_cast<int>(kAdapters)));
    queue.Add({.id = kRunning + 1 + static_cast<RequestId>(i),
               .tenant = tenants[static_cast<size_t>(pick(0, kTenants))],
               .known_tokens = pick(8, 512),
               .left_tokens = pick(8, 512),
               .adapter = adapter,
               .adapter_pages = 8,
               .adapter_bytes = 1 << 20},
              adapter <= kResident ? AdapterState::kResident : AdapterState::kStored, {});
  }
  const NothingKnown facts;
  StepPlan plan;
  for (auto _ : state) {
    PlanStep({.running = running,
              .waiting = &queue,
              .tenants = &ledger,
              .facts = &facts,
              .free_pages = pages,
              .output_share = 0.3},
             policy, &plan);
    benchmark::DoNotOptimize(plan);
  }
  state.counters["admitted"] = static_cast<double>(plan.admit.size());
  state.counters["loads"] = static_cast<double>(plan.load.size());
  state.counters["passed"] = static_cast<double>(plan.overtaken.size());
}
BENCHMARK(BM_Plan)
    ->ArgNames({"waiting", "places", "pages", "mode"})
    ->ArgsProduct({{100, 10000}, {0, 1, 64}, {300, 100000}, {0, 1, 2}})
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace lorad

BENCHMARK_MAIN();
