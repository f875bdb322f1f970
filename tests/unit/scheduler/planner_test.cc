#include "scheduler/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

namespace lorad {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr SchedulerPolicy kPolicy{.max_step_tokens = 64,
                                  .max_sequences = 4,
                                  .max_chunk_tokens = 32,
                                  .max_adapter_loads = 1,
                                  .page_tokens = 16,
                                  .reserve_pages = 0};

StepPlan Plan(const PlannerView& view, const SchedulerPolicy& policy = kPolicy) {
  StepPlan plan;
  PlanStep(view, policy, &plan);
  return plan;
}

RunningView Decoding(RequestId id, int tokens, int pages) {
  return {.id = id,
          .known_tokens = tokens,
          .computed_tokens = tokens - 1,
          .held_pages = pages,
          .releasable_pages = pages};
}

WaitingView Waiting(RequestId id, int tokens) { return {.id = id, .known_tokens = tokens}; }

WaitingView WaitingFor(RequestId id, int tokens, AdapterState state, uint64_t adapter,
                       uint32_t pages) {
  return {.id = id,
          .known_tokens = tokens,
          .adapter_state = state,
          .adapter = adapter,
          .adapter_pages = pages,
          .adapter_idle = state == AdapterState::kResident};
}

TEST(PlannerTest, NothingToDoIsAnEmptyPlan) {
  const StepPlan plan = Plan({.free_pages = 10});
  EXPECT_THAT(plan.run, IsEmpty());
  EXPECT_THAT(plan.admit, IsEmpty());
}

TEST(PlannerTest, DecodeComesBeforePrefillAndPrefillIsChunked) {
  const std::vector<RunningView> running = {
      {.id = 1, .known_tokens = 100, .computed_tokens = 0, .held_pages = 7}, Decoding(2, 10, 1)};
  const StepPlan plan = Plan({.running = running, .free_pages = 10});
  EXPECT_THAT(plan.run, ElementsAre(StepPlan::Run{2, 1, 0}, StepPlan::Run{1, 32, 0}));
}

TEST(PlannerTest, StepBudgetIsShared) {
  std::vector<RunningView> running;
  for (RequestId id = 1; id <= 3; ++id) {
    running.push_back({.id = id, .known_tokens = 200, .computed_tokens = 0, .held_pages = 13});
  }
  const StepPlan plan = Plan({.running = running, .free_pages = 10});
  EXPECT_THAT(plan.run, ElementsAre(StepPlan::Run{1, 32, 0}, StepPlan::Run{2, 32, 0}));
}

TEST(PlannerTest, DecodeTakesAPageAtAPageBoundary) {
  const std::vector<RunningView> running = {Decoding(1, 17, 1), Decoding(2, 16, 1)};
  const StepPlan plan = Plan({.running = running, .free_pages = 5});
  EXPECT_THAT(plan.run, ElementsAre(StepPlan::Run{1, 1, 1}, StepPlan::Run{2, 1, 0}));
}

TEST(PlannerTest, EvictablePagesCountAsAvailable) {
  const std::vector<RunningView> running = {Decoding(1, 17, 1)};
  const StepPlan plan = Plan({.running = running, .free_pages = 0, .evictable_pages = 1});
  EXPECT_THAT(plan.preempt, IsEmpty());
  EXPECT_THAT(plan.run, ElementsAre(StepPlan::Run{1, 1, 1}));
}

TEST(PlannerTest, YoungestIsPreemptedAndNothingIsAdmitted) {
  const std::vector<RunningView> running = {Decoding(1, 17, 1), Decoding(2, 17, 1),
                                            Decoding(3, 20, 2)};
  const std::vector<WaitingView> waiting = {Waiting(4, 1)};
  const StepPlan plan = Plan({.running = running, .waiting = waiting, .free_pages = 0});
  EXPECT_THAT(plan.preempt, ElementsAre(3));
  EXPECT_THAT(plan.run, ElementsAre(StepPlan::Run{1, 1, 1}, StepPlan::Run{2, 1, 1}));
  EXPECT_THAT(plan.admit, IsEmpty());
}

TEST(PlannerTest, AloneAndOutOfPagesItPreemptsItself) {
  const std::vector<RunningView> running = {Decoding(1, 17, 1)};
  const StepPlan plan = Plan({.running = running, .free_pages = 0});
  EXPECT_THAT(plan.preempt, ElementsAre(1));
  EXPECT_THAT(plan.run, IsEmpty());
}

TEST(PlannerTest, AdmitsInOrderWithPagesForTheWholePrompt) {
  const std::vector<WaitingView> waiting = {Waiting(1, 40), Waiting(2, 20), Waiting(3, 5)};
  const StepPlan plan = Plan({.waiting = waiting, .free_pages = 10});
  EXPECT_THAT(plan.admit, ElementsAre(1, 2, 3));
  EXPECT_THAT(plan.run, ElementsAre(StepPlan::Run{1, 32, 3}, StepPlan::Run{2, 20, 2},
                                    StepPlan::Run{3, 5, 1}));
}

TEST(PlannerTest, SequenceSlotsBoundAdmission) {
  std::vector<WaitingView> waiting;
  for (RequestId id = 1; id <= 6; ++id) waiting.push_back(Waiting(id, 2));
  EXPECT_THAT(Plan({.waiting = waiting, .free_pages = 10}).admit, ElementsAre(1, 2, 3, 4));
}

TEST(PlannerTest, HeadThatDoesNotFitStopsThoseBehind) {
  const std::vector<RunningView> running = {Decoding(1, 5, 1)};
  const std::vector<WaitingView> waiting = {Waiting(2, 100), Waiting(3, 5)};
  const StepPlan plan = Plan({.running = running, .waiting = waiting, .free_pages = 3});
  EXPECT_THAT(plan.admit, IsEmpty());
}

TEST(PlannerTest, ReserveAppliesOnlyWhileSomethingRuns) {
  SchedulerPolicy policy = kPolicy;
  policy.reserve_pages = 2;
  const std::vector<WaitingView> waiting = {Waiting(2, 32)};
  const std::vector<RunningView> running = {Decoding(1, 5, 1)};
  EXPECT_THAT(Plan({.running = running, .waiting = waiting, .free_pages = 3}, policy).admit,
              IsEmpty());
  EXPECT_THAT(Plan({.waiting = waiting, .free_pages = 3}, policy).admit, ElementsAre(2));
}

TEST(PlannerTest, ColdAdapterIsLoadedOnceAndDelaysNobody) {
  const std::vector<WaitingView> waiting = {WaitingFor(1, 5, AdapterState::kStored, 7, 2),
                                            WaitingFor(2, 5, AdapterState::kStored, 7, 2),
                                            Waiting(3, 5)};
  const StepPlan plan = Plan({.waiting = waiting, .free_pages = 10});
  EXPECT_THAT(plan.load_adapters, ElementsAre(7));
  EXPECT_THAT(plan.admit, ElementsAre(3));
}

TEST(PlannerTest, LoadsInFlightAreBounded) {
  const std::vector<WaitingView> waiting = {WaitingFor(1, 5, AdapterState::kStored, 7, 2),
                                            WaitingFor(2, 5, AdapterState::kStored, 8, 2)};
  EXPECT_THAT(Plan({.waiting = waiting, .free_pages = 10}).load_adapters, ElementsAre(7));
  EXPECT_THAT(
      Plan({.waiting = waiting, .free_pages = 10, .adapter_loads_in_flight = 1}).load_adapters,
      IsEmpty());
}

TEST(PlannerTest, LoadingAdapterIsPassedOver) {
  const std::vector<WaitingView> waiting = {WaitingFor(1, 5, AdapterState::kLoading, 7, 2),
                                            Waiting(2, 5)};
  const StepPlan plan = Plan({.waiting = waiting, .free_pages = 10, .adapter_loads_in_flight = 1});
  EXPECT_THAT(plan.admit, ElementsAre(2));
  EXPECT_THAT(plan.load_adapters, IsEmpty());
}

TEST(PlannerTest, IdleAdapterOfAnAdmittedRequestIsNotEvictableAnyMore) {
  // Two pages are evictable, but they are the adapter's own: nothing is left for the prompt.
  const std::vector<WaitingView> waiting = {WaitingFor(1, 5, AdapterState::kResident, 7, 2)};
  EXPECT_THAT(Plan({.waiting = waiting, .free_pages = 0, .evictable_pages = 2}).admit, IsEmpty());
  EXPECT_THAT(Plan({.waiting = waiting, .free_pages = 1, .evictable_pages = 2}).admit,
              ElementsAre(1));
}

TEST(PlannerTest, TwoRequestsPinTheirIdleAdapterOnce) {
  const std::vector<WaitingView> waiting = {WaitingFor(1, 5, AdapterState::kResident, 7, 2),
                                            WaitingFor(2, 5, AdapterState::kResident, 7, 2)};
  EXPECT_THAT(Plan({.waiting = waiting, .free_pages = 2, .evictable_pages = 2}).admit,
              ElementsAre(1, 2));
}

TEST(PlannerTest, PausedSequencesKeepTheirPagesAndGetNothing) {
  std::vector<RunningView> running = {Decoding(1, 10, 1), Decoding(2, 10, 1)};
  running[0].paused = true;
  EXPECT_THAT(Plan({.running = running, .free_pages = 10}).run,
              ElementsAre(StepPlan::Run{2, 1, 0}));
}

TEST(PlannerTest, PreemptionCountsOnlyPagesThatNobodyElseHolds) {
  std::vector<RunningView> running = {Decoding(1, 17, 1), Decoding(2, 40, 3), Decoding(3, 40, 3)};
  running[2].releasable_pages = 0;  // all shared with 2
  const StepPlan plan = Plan({.running = running, .free_pages = 0});
  EXPECT_THAT(plan.preempt, ElementsAre(3, 2));
  EXPECT_THAT(plan.run, ElementsAre(StepPlan::Run{1, 1, 1}));
}

TEST(PlannerTest, CachedBeginningIsNeitherComputedNorPaidForAgain) {
  WaitingView w = Waiting(1, 40);
  w.cached_tokens = 35;  // two pages shared, three tokens copied
  w.cached_pages = 2;
  const std::vector<WaitingView> waiting = {w};
  const StepPlan plan = Plan({.waiting = waiting, .free_pages = 1});
  EXPECT_THAT(plan.admit, ElementsAre(1));
  EXPECT_THAT(plan.run, ElementsAre(StepPlan::Run{1, 5, 1}));
}

TEST(PlannerTest, CachedPagesThatWereIdleAreNotEvictableAnyMore) {
  WaitingView w = Waiting(1, 40);
  w.cached_tokens = 35;
  w.cached_pages = 2;
  w.cached_idle_pages = 3;  // and the one that is copied
  const std::vector<WaitingView> waiting = {w};
  const std::vector<RunningView> running = {Decoding(9, 5, 1)};
  EXPECT_THAT(
      Plan({.running = running, .waiting = waiting, .free_pages = 0, .evictable_pages = 3}).admit,
      IsEmpty());
  EXPECT_THAT(
      Plan({.running = running, .waiting = waiting, .free_pages = 1, .evictable_pages = 3}).admit,
      ElementsAre(1));
}

TEST(PlannerTest, WhatCanNeverFitIsRefusedAndStopsNobody) {
  const std::vector<WaitingView> waiting = {
      Waiting(1, 100), WaitingFor(2, 5, AdapterState::kStored, 7, 9), Waiting(3, 5)};
  const StepPlan plan = Plan({.waiting = waiting, .free_pages = 3, .evictable_pages = 2});
  EXPECT_THAT(plan.refuse, ElementsAre(1, 2));
  EXPECT_THAT(plan.admit, ElementsAre(3));
}

TEST(PlannerTest, NothingIsRefusedWhilePagesMayComeBack) {
  const std::vector<WaitingView> waiting = {Waiting(2, 100)};
  const std::vector<RunningView> running = {Decoding(1, 5, 1)};
  EXPECT_THAT(Plan({.running = running, .waiting = waiting, .free_pages = 3}).refuse, IsEmpty());
  EXPECT_THAT(Plan({.waiting = waiting, .free_pages = 3, .adapter_loads_in_flight = 1}).refuse,
              IsEmpty());
  const std::vector<WaitingView> behind = {Waiting(1, 5), Waiting(2, 100)};
  EXPECT_THAT(Plan({.waiting = behind, .free_pages = 3}).refuse, IsEmpty());
}

// Random serving histories: the plan never breaks a budget, never promises a page twice, and
// something always happens.
class PlannerPropertyTest : public ::testing::TestWithParam<int> {};

struct Model {
  struct Seq {
    int known, computed = 0, pages = 0, to_make;
    uint64_t adapter = 0;
  };
  std::map<RequestId, Seq> running, waiting;
  std::map<uint64_t, AdapterState> adapters;
  std::map<uint64_t, uint32_t> adapter_pages;
  uint32_t total = 60;

  bool InUse(uint64_t adapter) const {
    for (const auto& [id, s] : running) {
      if (s.adapter == adapter) return true;
    }
    return false;
  }
  uint32_t Used() const {
    uint32_t used = 0;
    for (const auto& [id, s] : running) used += static_cast<uint32_t>(s.pages);
    for (const auto& [id, state] : adapters) {
      if (state != AdapterState::kStored) used += adapter_pages.at(id);
    }
    return used;
  }
  uint32_t Evictable() const {
    uint32_t pages = 0;
    for (const auto& [id, state] : adapters) {
      if (state == AdapterState::kResident && !InUse(id)) pages += adapter_pages.at(id);
    }
    return pages;
  }
  void MakeRoom(uint32_t pages, const std::set<uint64_t>& keep) {
    for (auto& [id, state] : adapters) {
      if (total - Used() >= pages) return;
      if (state == AdapterState::kResident && !InUse(id) && !keep.contains(id)) {
        state = AdapterState::kStored;
      }
    }
    ASSERT_GE(total - Used(), pages);
  }
};

TEST_P(PlannerPropertyTest, KeepsBudgetsAndMakesProgress) {
  std::mt19937 rng(static_cast<unsigned>(GetParam()));
  const auto random = [&rng](int lo, int hi) {
    return std::uniform_int_distribution<int>(lo, hi)(rng);
  };
  Model m;
  for (uint64_t a = 1; a <= 6; ++a) {
    m.adapters[a] = AdapterState::kStored;
    m.adapter_pages[a] = static_cast<uint32_t>(random(1, 20));
  }
  RequestId next = 1;
  int idle_steps = 0;
  for (int step = 0; step < 3000; ++step) {
    while (step < 2000 && m.waiting.size() < 8 && random(0, 2) == 0) {
      m.waiting[next++] = {.known = random(1, 300),
                           .to_make = random(1, 40),
                           .adapter = static_cast<uint64_t>(random(0, 6))};
    }
    std::vector<RunningView> running;
    for (const auto& [id, s] : m.running) {
      running.push_back({.id = id,
                         .known_tokens = s.known,
                         .computed_tokens = s.computed,
                         .held_pages = s.pages,
                         .releasable_pages = s.pages});
    }
    std::vector<WaitingView> waiting;
    int loads = 0;
    for (const auto& [id, state] : m.adapters) loads += state == AdapterState::kLoading;
    for (const auto& [id, s] : m.waiting) {
      const AdapterState state = s.adapter == 0 ? AdapterState::kNone : m.adapters[s.adapter];
      waiting.push_back({.id = id,
                         .known_tokens = s.known,
                         .adapter_state = state,
                         .adapter = s.adapter,
                         .adapter_pages = s.adapter == 0 ? 0 : m.adapter_pages[s.adapter],
                         .adapter_idle = state == AdapterState::kResident && !m.InUse(s.adapter)});
    }
    const StepPlan plan = Plan({.running = running,
                                .waiting = waiting,
                                .free_pages = m.total - m.Used(),
                                .evictable_pages = m.Evictable(),
                                .adapter_loads_in_flight = loads});
    ASSERT_THAT(plan.refuse, IsEmpty()) << "every request fits into an empty pool";
    for (RequestId id : plan.preempt) {
      m.waiting[id] = m.running.at(id);
      m.waiting[id].computed = m.waiting[id].pages = 0;
      m.running.erase(id);
    }
    for (RequestId id : plan.admit) {
      m.running[id] = m.waiting.at(id);
      m.waiting.erase(id);
    }
    for (uint64_t a : plan.load_adapters) {
      m.MakeRoom(m.adapter_pages[a], {});
      m.adapters[a] = AdapterState::kLoading;
    }
    EXPECT_LE(m.running.size(), static_cast<size_t>(kPolicy.max_sequences));
    EXPECT_LE(loads + static_cast<int>(plan.load_adapters.size()), kPolicy.max_adapter_loads);
    int tokens = 0;
    for (const StepPlan::Run& run : plan.run) {
      auto& s = m.running.at(run.id);
      m.MakeRoom(run.new_pages, {});
      s.pages += static_cast<int>(run.new_pages);
      tokens += run.tokens;
      s.computed += run.tokens;
      ASSERT_LE(s.computed, s.known);
      ASSERT_LE(s.computed, s.pages * kPolicy.page_tokens);
      ASSERT_LE(run.tokens, kPolicy.max_chunk_tokens);
      if (s.computed == s.known) {
        s.known += 1;
        if (--s.to_make == 0) m.running.erase(run.id);
      }
    }
    ASSERT_LE(tokens, kPolicy.max_step_tokens);
    ASSERT_LE(m.Used(), m.total);
    const bool moved = !plan.run.empty() || !plan.load_adapters.empty() || !plan.preempt.empty();
    bool finished_load = false;
    for (auto& [id, state] : m.adapters) {
      if (state == AdapterState::kLoading && random(0, 3) == 0) {
        state = AdapterState::kResident;
        finished_load = true;
      }
    }
    idle_steps =
        moved || finished_load || (m.running.empty() && m.waiting.empty()) ? 0 : idle_steps + 1;
    ASSERT_LT(idle_steps, 100) << "nothing moves at step " << step;
  }
  EXPECT_TRUE(m.running.empty());
  EXPECT_TRUE(m.waiting.empty()) << m.waiting.size() << " requests starved";
}

INSTANTIATE_TEST_SUITE_P(Seeds, PlannerPropertyTest, ::testing::Range(0, 50));

}  // namespace
}  // namespace lorad
