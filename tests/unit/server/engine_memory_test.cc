// What the engine does with pages: prefixes that are found again, preemption that keeps its work,
// versions that go with their last request, pins. The fake executor's tokens depend on every page
// that a sequence reads, so a page that is shared wrongly changes an output.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "memory/base/error_detail.h"
#include "tests/unit/server/fake_engine_parts.h"

namespace lorad {
namespace {

std::vector<TokenId> Range(TokenId first, int count) {
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// An engine that admits as the test's parameter says.
struct Fixture : EngineFixture {
  static inline AdmissionMode admission = AdmissionMode::kPromptOnly;

  explicit Fixture(uint32_t pages, std::function<void(EngineOptions*)> tune_more = nullptr)
      : EngineFixture(pages, [tune_more](EngineOptions* o) {
          o->policy.admission = admission;
          if (tune_more) tune_more(o);
        }) {}
};

// What the request gives on a server that has nothing else and keeps nothing.
std::vector<TokenId> Expected(EngineFixture::Request r) {
  Fixture f(100);
  f.executor.overlaps = false;
  f.load_now = true;
  r.capacity = 1000;
  if (r.adapter != nullptr) {  // the same weights, but not the same activity
    r.adapter = FakeAdapter(r.adapter->id, r.adapter->pages, r.adapter->name);
  }
  return f.RunAlone(r);
}

// Runs it and returns how many of its prompt's tokens were found in the cache.
int CachedTokens(EngineFixture* f, const EngineFixture::Request& r) {
  EngineFixture::Handle handle = f->Submit(r);
  EXPECT_TRUE(handle.id.ok()) << handle.id.status();
  f->RunUntilIdle();
  handle.Collect();
  EXPECT_TRUE(handle.end.has_value() && handle.end->status.ok());
  EXPECT_EQ(handle.tokens, Expected(r));
  return handle.end->usage.cached_tokens;
}

// In both loops and every admission mode.
class EngineMemoryTest : public testing::TestWithParam<std::tuple<bool, AdmissionMode>> {
 protected:
  EngineMemoryTest() {
    EngineFixture::overlaps_by_default = overlaps();
    Fixture::admission = std::get<1>(GetParam());
  }
  ~EngineMemoryTest() override {
    EngineFixture::overlaps_by_default = false;
    Fixture::admission = AdmissionMode::kPromptOnly;
  }
  static bool overlaps() { return std::get<0>(GetParam()); }
};
std::string LoopAndModeName(const testing::TestParamInfo<std::tuple<bool, AdmissionMode>>& info) {
  constexpr const char* kModes[] = {"PromptOnly", "Optimistic", "NoEvict"};
  return std::string(std::get<0>(info.param) ? "Overlapped" : "Synchronous") +
         kModes[static_cast<int>(std::get<1>(info.param))];
}
INSTANTIATE_TEST_SUITE_P(LoopsAndModes, EngineMemoryTest,
                         testing::Combine(testing::Bool(),
                                          testing::Values(AdmissionMode::kPromptOnly,
                                                          AdmissionMode::kOptimistic,
                                                          AdmissionMode::kNoEvict)),
                         LoopAndModeName);

// Where much is preempted.
using EnginePreemptionTest = LoopTest;
INSTANTIATE_TEST_SUITE_P(Loops, EnginePreemptionTest, testing::Bool(), LoopName);

TEST_P(EngineMemoryTest, PromptThatIsKnownIsNotComputedAgain) {
  Fixture f(50);
  const EngineFixture::Request r{.prompt = Range(10, 19), .max_tokens = 3};
  EXPECT_EQ(CachedTokens(&f, r), 0);
  EXPECT_EQ(f.executor.computed_tokens, 19 + 2);
  f.executor.computed_tokens = 0;
  // Four whole pages are shared, and two tokens of the fifth are copied: the last is computed for
  // its logits.
  EXPECT_EQ(CachedTokens(&f, r), 18);
  EXPECT_EQ(f.executor.computed_tokens, 1 + 2);
  EXPECT_EQ(f.executor.page_copies, 1);
}

TEST_P(EngineMemoryTest, WhatWasGeneratedIsFoundInTheNextTurn) {
  Fixture f(50);
  EngineFixture::Request r{.prompt = Range(10, 8), .max_tokens = 9};
  const std::vector<TokenId> answer = f.RunAlone(r);
  r.prompt.insert(r.prompt.end(), answer.begin(), answer.end());
  r.prompt.push_back(5);
  // All but the last token of the answer was computed.
  EXPECT_EQ(CachedTokens(&f, r), 8 + 8);
}

TEST_P(EngineMemoryTest, BranchesShareTheTrunk) {
  Fixture f(50);
  std::vector<TokenId> trunk = Range(100, 10);
  for (TokenId branch = 1; branch <= 5; ++branch) {
    EngineFixture::Request r{.prompt = trunk, .max_tokens = 4};
    r.prompt.resize(12, branch);
    EXPECT_EQ(CachedTokens(&f, r), branch == 1 ? 0 : 10) << branch;
  }
}

TEST_P(EngineMemoryTest, RequestsThatRunTogetherShare) {
  Fixture f(50);
  const EngineFixture::Request r{.prompt = Range(10, 16), .max_tokens = 30};
  EngineFixture::Handle first = f.Submit(r);
  for (int i = 0; i < 5; ++i) f.engine->Step();
  EngineFixture::Handle second = f.Submit(r);
  f.engine->Step();
  // 16 + 15 tokens and their copy are in fewer pages than two sequences alone would take.
  EXPECT_LT(f.kv_pages(), 2u * 5u);
  f.RunUntilIdle();
  first.Collect();
  second.Collect();
  EXPECT_EQ(first.tokens, Expected(r));
  EXPECT_EQ(second.tokens, first.tokens);
  EXPECT_EQ(second.end->usage.cached_tokens, 15);
}

TEST_P(EngineMemoryTest, NothingIsSharedAcrossScopes) {
  const auto one = FakeAdapter(1, 2, "one"), two = FakeAdapter(2, 2, "two");
  const std::vector<TokenId> prompt = Range(10, 12);
  const std::vector<EngineFixture::Request> scopes = {
      {.prompt = prompt},
      {.prompt = prompt, .adapter = one},
      {.prompt = prompt, .adapter = two},
      {.prompt = prompt, .tenant = "acme"},
      {.prompt = prompt, .adapter = one, .tenant = "acme"},
      {.prompt = prompt, .cache_salt = "alice"},
      {.prompt = prompt, .tenant = "acme", .cache_salt = "alice"},
  };
  Fixture f(200);
  for (const auto& r : scopes) EXPECT_EQ(CachedTokens(&f, r), 0);
  for (const auto& r : scopes) EXPECT_EQ(CachedTokens(&f, r), 11);
}

TEST_P(EngineMemoryTest, BasePrefixesAreSharedAcrossTenantsOnlyOnRequest) {
  const auto adapter = FakeAdapter(1, 2);
  for (const bool share : {false, true}) {
    Fixture f(100, [share](EngineOptions* o) { o->share_base_prefixes = share; });
    const EngineFixture::Request acme{.prompt = Range(10, 12), .tenant = "acme"};
    EngineFixture::Request other = acme;
    other.tenant = "other";
    CachedTokens(&f, acme);
    EXPECT_EQ(CachedTokens(&f, other), share ? 11 : 0);
    EngineFixture::Request with_adapter = acme, other_with_adapter = other;
    with_adapter.adapter = other_with_adapter.adapter = adapter;
    CachedTokens(&f, with_adapter);
    EXPECT_EQ(CachedTokens(&f, other_with_adapter), 0) << "an adapter's are never shared";
  }
}

// vLLM's issue 42125: a reload under the same name must not meet the old version's keys and values.
TEST_P(EngineMemoryTest, NewVersionNeverMeetsTheOldOnesPages) {
  Fixture f(50);
  const auto old_version = FakeAdapter(1, 2, "a"), new_version = FakeAdapter(2, 2, "a");
  EngineFixture::Request r{.prompt = Range(10, 12), .adapter = old_version};
  CachedTokens(&f, r);
  EXPECT_GT(f.pool.states().kv_cached, 0u);
  f.engine->Retire(old_version->id);
  f.engine->Step();
  EXPECT_EQ(f.pool.states().kv_cached, 0u) << "the old version's pages are gone";
  EXPECT_EQ(f.pool.states().adapter, 0u);
  r.adapter = new_version;
  EXPECT_EQ(CachedTokens(&f, r), 0);
}

TEST_P(EngineMemoryTest, RetiredVersionGoesWithItsLastRequest) {
  Fixture f(50);
  const auto version = FakeAdapter(1, 2, "a");
  const EngineFixture::Request r{.prompt = Range(10, 12), .max_tokens = 10, .adapter = version};
  EngineFixture::Handle running = f.Submit(r);
  f.engine->Step();
  f.FinishLoads();
  for (int i = 0; i < 3; ++i) f.engine->Step();
  f.engine->Retire(version->id);
  EngineFixture::Handle late = f.Submit(r);  // resolved the name just before
  f.RunUntilIdle();
  running.Collect();
  late.Collect();
  EXPECT_EQ(running.tokens, Expected(r));
  EXPECT_EQ(late.tokens, running.tokens);
  EXPECT_EQ(f.pool.states().free, 50u) << "neither image nor prefixes are left";
  EXPECT_EQ(version->activity->state.load(), AdapterState::kStored);
  EXPECT_EQ(version->activity->active.load(), 0);
}

TEST_P(EngineMemoryTest, AdapterThatIsRetiredWhileItLoadsLeavesNothing) {
  Fixture f(50);
  const auto version = FakeAdapter(1, 2);
  f.engine->Preload(version);
  f.engine->Step();
  EXPECT_EQ(f.pool.states().loading, 2u);
  EXPECT_EQ(version->activity->state.load(), AdapterState::kLoading);
  f.engine->Retire(version->id);
  f.engine->Step();
  f.FinishLoads();
  f.engine->Step();
  EXPECT_EQ(f.pool.states().free, 50u);
  EXPECT_EQ(version->activity->state.load(), AdapterState::kStored);
}

TEST_P(EnginePreemptionTest, KeepsItsWork) {
  // Two sequences grow to 12 pages each; 16 are there. The younger is preempted and goes on from
  // what the elder did not need of its pages.
  Fixture f(16);
  const EngineFixture::Request a{.prompt = Range(10, 20), .max_tokens = 28};
  EngineFixture::Request b{.prompt = Range(500, 20), .max_tokens = 28};
  EngineFixture::Handle first = f.Submit(a), second = f.Submit(b);
  f.RunUntilIdle();
  first.Collect();
  second.Collect();
  EXPECT_GT(f.observer.preemptions, 0);
  EXPECT_EQ(first.tokens, Expected(a));
  EXPECT_EQ(second.tokens, Expected(b));
  const int at_least = 2 * (20 + 27);
  EXPECT_LT(f.executor.computed_tokens, at_least + 20)
      << "less than its prompt was computed a second time";
  EXPECT_GT(f.observer.cached_tokens, 0);
  EXPECT_EQ(second.end->usage.cached_tokens, 0) << "its own earlier work is no hit";
}

TEST_P(EngineMemoryTest, ScoringReusesWhatComesBeforeTheScoredTokens) {
  Fixture f(50);
  const std::vector<TokenId> prompt = Range(10, 16);
  f.RunAlone({.prompt = prompt, .max_tokens = 2});
  EngineFixture::Handle handle = f.Submit({.prompt = prompt, .score = true, .score_from = 9});
  f.executor.computed_tokens = 0;
  f.RunUntilIdle();
  handle.Collect();
  ASSERT_EQ(handle.scores.size(), 7u);
  EXPECT_EQ(handle.scores[0].logprob, -8.0f) << "the prediction of token 9 is made at position 8";
  EXPECT_EQ(handle.end->usage.cached_tokens, 8);
  EXPECT_EQ(f.executor.computed_tokens, 8);
}

TEST_P(EngineMemoryTest, PinnedAdapterStaysUnderPressure) {
  Fixture f(20);
  f.load_now = true;
  const auto pinned = FakeAdapter(1, 4, "pinned");
  f.engine->SetPinned(pinned, true);
  for (int i = 0; i < 2; ++i) f.engine->Step();
  EXPECT_EQ(pinned->activity->state.load(), AdapterState::kResident);
  for (AdapterVersionId id = 2; id < 12; ++id) {
    f.RunAlone({.prompt = Range(10 * static_cast<TokenId>(id), 30),
                .max_tokens = 5,
                .adapter = FakeAdapter(id, 4)});
    EXPECT_EQ(pinned->activity->state.load(), AdapterState::kResident);
  }
  EXPECT_GT(f.observer.evictions, 0);
  EXPECT_EQ(f.engine->Snapshot().gauges.pages_adapter_pinned, 4u);
  f.engine->SetPinned(pinned, false);
  for (AdapterVersionId id = 12; id < 16; ++id) {
    f.RunAlone({.prompt = Range(10, 30), .max_tokens = 5, .adapter = FakeAdapter(id, 4)});
  }
  EXPECT_EQ(pinned->activity->state.load(), AdapterState::kStored);
}

TEST_P(EngineMemoryTest, RequestOfAPinnedAdapterNeedsNoPagesForIt) {
  Fixture f(20);
  f.load_now = true;
  const auto pinned = FakeAdapter(1, 10, "pinned");
  f.engine->SetPinned(pinned, true);
  f.RunUntilIdle();
  f.engine->Step();
  EXPECT_EQ(f.RunAlone({.prompt = Range(10, 30), .adapter = pinned}).size(), 5u);
}

TEST_P(EngineMemoryTest, PinWaitsForRoom) {
  Fixture f(12);
  f.load_now = true;
  EngineFixture::Handle handle = f.Submit({.prompt = Range(10, 30), .max_tokens = 10});
  f.engine->Step();
  const auto pinned = FakeAdapter(1, 6);
  f.engine->SetPinned(pinned, true);
  f.engine->Step();
  EXPECT_EQ(pinned->activity->state.load(), AdapterState::kStored);
  f.RunUntilIdle();
  for (int i = 0; i < 2; ++i) f.engine->Step();
  EXPECT_EQ(pinned->activity->state.load(), AdapterState::kResident);
}

TEST_P(EngineMemoryTest, RequestThatCanNeverFitBesideThePinsIsRefused) {
  Fixture f(20);
  f.load_now = true;
  f.engine->SetPinned(FakeAdapter(1, 10), true);
  f.RunUntilIdle();
  f.engine->Step();
  EngineFixture::Handle large = f.Submit({.prompt = Range(10, 60), .max_tokens = 1});
  EngineFixture::Handle large_adapter =
      f.Submit({.prompt = {1}, .max_tokens = 1, .adapter = FakeAdapter(2, 11)});
  const EngineFixture::Request small{.prompt = Range(10, 20), .max_tokens = 3};
  EngineFixture::Handle behind = f.Submit(small);
  f.RunUntilIdle();
  for (EngineFixture::Handle* handle : {&large, &large_adapter}) {
    handle->Collect();
    ASSERT_TRUE(handle->end.has_value());
    EXPECT_EQ(handle->end->status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(GetErrorDetail(handle->end->status).reason, "LARGER_THAN_POOL");
  }
  behind.Collect();
  EXPECT_EQ(behind.tokens, Expected(small));
}

// All of an adapter's pages go to another one's load while somebody waits for it.
TEST_P(EngineMemoryTest, AdapterThatALoadTakesThePagesOfIsLoadedAgain) {
  Fixture f(24, [](EngineOptions* o) {
    o->policy.max_sequences = 1;
    o->policy.kept_requests = 0;  // nothing is spared
  });
  const auto taken = FakeAdapter(1, 8, "taken"), taker = FakeAdapter(2, 8, "taker");
  const EngineFixture::Request on_taken{.prompt = Range(10, 4), .adapter = taken};
  const EngineFixture::Request on_taker{.prompt = Range(50, 4), .adapter = taker};
  f.RunAlone(on_taken);
  // It has the only place and most of what is free.
  EngineFixture::Handle running = f.Submit({.prompt = Range(90, 40), .max_tokens = 8});
  f.engine->Step();
  EngineFixture::Handle waits = f.Submit(on_taken), cold = f.Submit(on_taker);
  f.engine->Step();
  EXPECT_EQ(taker->activity->state.load(), AdapterState::kLoading);
  EXPECT_EQ(taken->activity->state.load(), AdapterState::kStored);
  f.RunUntilIdle();
  EXPECT_GE(f.loads_started, 3);
  waits.Collect();
  cold.Collect();
  EXPECT_EQ(waits.tokens, Expected(on_taken));
  EXPECT_EQ(cold.tokens, Expected(on_taker));
}

// A preload that had to wait for its turn begins in the very step that took its adapter's pages.
TEST_P(EngineMemoryTest, AdapterIsLoadedAgainInTheStepThatEvictsIt) {
  Fixture f(40, [](EngineOptions* o) {
    o->policy.max_adapter_loads = 1;
    o->policy.kept_requests = 0;
  });
  const auto wanted = FakeAdapter(1, 6, "wanted");
  const auto before = FakeAdapter(2, 2, "before"), after = FakeAdapter(3, 2, "after");
  const auto submit = [&f](TokenId first, int max_tokens, auto adapter) {
    return f.Submit({.prompt = Range(first, 4), .max_tokens = max_tokens, .adapter = adapter});
  };
  std::vector<EngineFixture::Handle> handles = {submit(10, 40, before)};
  f.engine->Step();
  f.engine->Preload(wanted);
  handles.push_back(submit(20, 2, wanted));
  f.engine->Step();  // the one load is under way
  handles.push_back(submit(30, 40, after));
  f.FinishLoads();
  f.engine->Step();  // `wanted` is loaded for its request, and then the one after it
  f.FinishLoads();
  for (int i = 0; i < 6; ++i) f.engine->Step();
  EXPECT_EQ(wanted->activity->state.load(), AdapterState::kResident);
  EXPECT_EQ(after->activity->state.load(), AdapterState::kLoading);
  // Who came last leaves what is used later than `wanted` was.
  handles.push_back(f.Submit({.prompt = Range(500, 24), .max_tokens = 1}));
  for (int i = 0; i < 6; ++i) f.engine->Step();
  f.FinishLoads();
  const int pages = static_cast<int>(f.pool.pages().free_pages()) + 2;
  handles.push_back(f.Submit({.prompt = Range(700, pages * kFakePageTokens), .max_tokens = 1}));
  const int loads = f.loads_started;
  f.engine->Step();
  EXPECT_EQ(f.loads_started, loads + 1);
  EXPECT_EQ(wanted->activity->state.load(), AdapterState::kLoading);
  f.FinishLoads();
  f.engine->Step();
  EXPECT_NE(wanted->activity->state.load(), AdapterState::kLoading);
  f.RunUntilIdle();
  for (EngineFixture::Handle& handle : handles) {
    handle.Collect();
    EXPECT_TRUE(handle.end.has_value() && handle.end->status.ok());
  }
}

TEST_P(EngineMemoryTest, WaitForAnAdapterIsBounded) {
  Fixture f(20, [](EngineOptions* o) { o->adapter_wait_timeout = std::chrono::seconds(5); });
  EngineFixture::Handle handle = f.Submit({.adapter = FakeAdapter(1, 2)});
  f.engine->Step();
  f.clock.Advance(std::chrono::seconds(4));
  f.engine->Step();
  handle.Collect();
  EXPECT_FALSE(handle.end.has_value());
  f.clock.Advance(std::chrono::seconds(2));
  f.engine->Step();
  handle.Collect();
  ASSERT_TRUE(handle.end.has_value());
  EXPECT_EQ(handle.end->status.code(), absl::StatusCode::kUnavailable);
  const ErrorDetail detail = GetErrorDetail(handle.end->status);
  EXPECT_EQ(detail.reason, "ADAPTER_LOAD_TIMEOUT");
  EXPECT_TRUE(detail.retry_after.has_value());
  f.RunUntilIdle();  // the load comes late, and does no harm
  EXPECT_EQ(f.pool.states().adapter, 2u);
}

TEST_P(EngineMemoryTest, SnapshotAccountsForEveryPage) {
  Fixture f(60);
  f.load_now = true;
  const auto mine = FakeAdapter(1, 3, "acme/a");
  mine->image_bytes = 9000;
  f.RunAlone({.prompt = Range(10, 12), .adapter = mine, .tenant = "acme"});
  EngineFixture::Handle handle =
      f.Submit({.prompt = Range(40, 10), .max_tokens = 20, .adapter = mine, .tenant = "acme"});
  f.engine->Step();
  f.engine->Step();
  const EngineSnapshot snapshot = f.engine->Snapshot();
  const GaugeReport& g = snapshot.gauges;
  EXPECT_EQ(g.pages_total, 60u);
  EXPECT_EQ(g.pages_free + g.pages_kv + g.pages_kv_cached + g.pages_adapter + g.pages_loading, 60u);
  EXPECT_EQ(g.pages_adapter, 3u);
  EXPECT_EQ(g.pages_kv, 3u);
  EXPECT_EQ(g.pages_kv_cached, 4u);
  EXPECT_EQ(g.waste_kv_bytes, (3u * kFakePageTokens - 10u) * 4096 / kFakePageTokens);
  EXPECT_EQ(g.waste_adapter_bytes, 3u * 4096 - 9000);
  ASSERT_EQ(snapshot.adapters.size(), 1u);
  EXPECT_EQ(snapshot.adapters[0].kv_pages, 3u);
  EXPECT_EQ(snapshot.adapters[0].kv_cached_pages, 4u);
  ASSERT_EQ(snapshot.tenants.size(), 1u);
  EXPECT_EQ(snapshot.tenants[0].name, "acme");
  EXPECT_EQ(snapshot.tenants[0].adapter_pages, 3u);
  f.RunUntilIdle();
}

// Requests of many scopes with prompts that begin alike, in pools from too small to ample, some of
// them cancelled, adapters replaced meanwhile: each output is what the request gives alone.
TEST_P(EngineMemoryTest, OutputsNeverDependOnWhatIsCached) {
  const char* wanted = std::getenv("LORAD_SEEDS");  // more than in an ordinary run
  const uint32_t seeds = wanted == nullptr ? 35 : static_cast<uint32_t>(std::atoi(wanted));
  for (uint32_t seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto pick = [&random](int n) { return static_cast<int>(random() % unsigned(n)); };
    const int scopes = 1 + pick(4);  // the fewer, the more is shared
    Fixture f(25 + static_cast<uint32_t>(pick(60)));
    f.stream_loads = pick(2) == 0;
    const bool host_samples = pick(2) == 0;
    std::vector<std::shared_ptr<AdapterVersion>> adapters;
    AdapterVersionId next_id = 1;
    for (int i = 0; i < 4; ++i) {
      adapters.push_back(FakeAdapter(next_id++, 1 + static_cast<uint32_t>(pick(4)), "a"));
    }
    std::vector<std::pair<EngineFixture::Request, EngineFixture::Handle>> all;
    for (int i = 0; i < 120; ++i) {
      EngineFixture::Request r;
      r.prompt = Range(100 * (1 + pick(3)), 1 + pick(30));
      for (int tail = pick(4); tail > 0; --tail) r.prompt.push_back(pick(3));
      r.max_tokens = 1 + pick(15);
      for (int stops = pick(2) * 150; stops > 0; --stops) r.stop_tokens.push_back(pick(kFakeVocab));
      if (host_samples && pick(10) == 0) r.logprobs = 0;
      if (pick(4) == 0) r.capacity = static_cast<size_t>(1 + pick(4));
      if (pick(scopes) > 0) r.adapter = adapters[static_cast<size_t>(pick(scopes))];
      if (pick(scopes) > 1) r.tenant = "acme";
      all.emplace_back(r, f.Submit(r));
      if (all.back().second.id.ok() && pick(12) == 0) f.engine->Cancel(*all.back().second.id);
      for (int steps = pick(4); steps > 0; --steps) f.engine->Step();
      if (pick(2) == 0) f.FinishLoads();
      if (pick(3) == 0) f.FinishTransfers();
      if (pick(3) == 0)
        all[static_cast<size_t>(pick(static_cast<int>(all.size())))].second.Collect();
      if (pick(10) == 0) {
        auto& replaced = adapters[static_cast<size_t>(pick(4))];
        f.engine->Retire(std::exchange(replaced, FakeAdapter(next_id++, 2, "a"))->id);
      }
    }
    while (!f.engine->idle()) {
      for (auto& [request, handle] : all) {
        if (handle.id.ok()) handle.Collect();
      }
      for (int steps = 1 + pick(5); steps > 0; --steps) f.engine->Step();
      f.FinishLoads();
      f.FinishTransfers();
    }
    f.RunUntilIdle();
    EXPECT_EQ(f.executor.overlapped_steps > 0, overlaps());
    for (auto& [request, handle] : all) {
      if (!handle.id.ok()) continue;  // the queue was full
      handle.Collect();
      ASSERT_TRUE(handle.end.has_value());
      // The end, and a token each time that it was admitted again.
      const int more = 1 + handle.end->timings.preemptions;
      EXPECT_LE(handle.most_events, request.capacity + static_cast<size_t>(more));
      if (absl::IsCancelled(handle.end->status)) continue;
      ASSERT_TRUE(handle.end->status.ok()) << handle.end->status;
      ASSERT_EQ(handle.tokens, Expected(request));
    }
    EXPECT_GT(f.observer.cached_tokens, 0);
  }
}

}  // namespace
}  // namespace lorad
