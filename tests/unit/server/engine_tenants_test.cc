// Tenants and priorities through the engine: who is charged for what, and whose turn it is.
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "tests/unit/server/fake_engine_parts.h"

namespace lorad {
namespace {

using Request = EngineFixture::Request;
using Handle = EngineFixture::Handle;

using EngineTenantsTest = LoopTest;
INSTANTIATE_TEST_SUITE_P(Loops, EngineTenantsTest, testing::Bool(), LoopName);

std::vector<TokenId> Prompt(TokenId first, int count) {
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// Steps until the request has its first token.
int StepsToFirstToken(EngineFixture* f, Handle* handle) {
  for (int steps = 1; steps < 1000; ++steps) {
    f->engine->Step();
    handle->Collect();
    if (!handle->tokens.empty()) return steps;
  }
  ADD_FAILURE() << "no token";
  return 0;
}

TEST_P(EngineTenantsTest, FloodHoldsUpNobodyElse) {
  int steps[2];
  for (const bool fair : {false, true}) {
    EngineFixture f(400, [fair](EngineOptions* o) {
      o->policy.fair_tenants = fair;
      o->policy.max_sequences = 8;
    });
    for (int i = 0; i < 40; ++i) {
      f.Submit({.prompt = Prompt(10 * i, 30), .max_tokens = 10, .tenant = "flood"});
    }
    for (int i = 0; i < 20; ++i) f.engine->Step();
    Handle light = f.Submit({.prompt = Prompt(700, 30), .max_tokens = 10, .tenant = "light"});
    steps[fair] = StepsToFirstToken(&f, &light);
    f.RunUntilIdle();
  }
  EXPECT_LE(steps[true], 13) << "more than the next place and its own four chunks";
  EXPECT_GE(steps[false], 3 * steps[true]);
}

TEST_P(EngineTenantsTest, WeightsAreShares) {
  EngineFixture f(400, [](EngineOptions* o) {
    o->policy.max_sequences = 4;
    o->max_waiting = 1000;
  });
  std::vector<Handle> light, heavy;
  for (int i = 0; i < 200; ++i) {
    light.push_back(f.Submit({.prompt = Prompt(i, 8), .max_tokens = 8, .tenant = "light"}));
    heavy.push_back(
        f.Submit({.prompt = Prompt(i, 8), .max_tokens = 8, .tenant = "heavy", .tenant_weight = 3}));
  }
  for (int i = 0; i < 300; ++i) f.engine->Step();
  int ended[2] = {0, 0};
  for (std::vector<Handle>* handles : {&light, &heavy}) {
    for (Handle& h : *handles) {
      h.Collect();
      ended[handles == &heavy] += h.end.has_value() ? 1 : 0;
    }
  }
  EXPECT_GE(ended[0], 20);
  EXPECT_LT(ended[1], 200) << "it must not have run out of requests";
  EXPECT_NEAR(static_cast<double>(ended[1]) / ended[0], 3, 0.3);
  f.RunUntilIdle();
}

TEST_P(EngineTenantsTest, UrgentRequestsGoBeforeOthers) {
  EngineFixture f(400, [](EngineOptions* o) { o->policy.max_sequences = 4; });
  for (int i = 0; i < 30; ++i) f.Submit({.max_tokens = 20, .priority = Priority::kBatch});
  for (int i = 0; i < 5; ++i) f.engine->Step();
  Handle urgent = f.Submit({.priority = Priority::kInteractive});
  EXPECT_LE(StepsToFirstToken(&f, &urgent), 23) << "more than the next place";
  f.RunUntilIdle();
}

// What is computed again after a preemption was paid for already, and what the cache has is cheap.
TEST_P(EngineTenantsTest, TokensAreChargedOnce) {
  const auto spread = [](uint32_t pages, int* preemptions) {
    EngineFixture f(pages, [](EngineOptions* o) { o->policy.cached_price = 0; });
    // Both tenants are active to the end, for an adapter that does not come; one has had nothing.
    const auto adapter = FakeAdapter(1, 2);
    for (const char* tenant : {"acme", "waits"}) f.Submit({.adapter = adapter, .tenant = tenant});
    std::vector<Handle> handles;
    for (int i = 0; i < 3; ++i) {
      handles.push_back(
          f.Submit({.prompt = Prompt(100 * i, 20), .max_tokens = 28, .tenant = "acme"}));
    }
    double most = 0;
    for (int i = 0; i < 400 && f.engine->unfinished() > 2; ++i) {
      f.engine->Step();
      most = std::max(most, f.observer.tenant_spread);
    }
    *preemptions = f.observer.preemptions;
    f.RunUntilIdle();
    return most;
  };
  int none = 0, some = 0;
  const double ample = spread(100, &none), tight = spread(16, &some);
  EXPECT_EQ(none, 0);
  EXPECT_GT(some, 0);
  EXPECT_EQ(ample, tight);
  EXPECT_EQ(ample, 3 * (20 + 2 * 28));
}

}  // namespace
}  // namespace lorad
