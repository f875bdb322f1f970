// The overlapped loop: what is under way, what ends while it is, and when its pages go. That it
// gives the same outputs is what the tests of both loops show (LoopTest).
#include <gtest/gtest.h>

#include <numeric>
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

std::unique_ptr<EngineFixture> Overlapped(uint32_t pages) {
  auto fixture = std::make_unique<EngineFixture>(pages);
  fixture->executor.overlaps = true;
  return fixture;
}

std::vector<TokenId> Alone(const EngineFixture::Request& r) {
  EngineFixture fixture(100);
  return fixture.RunAlone(r);
}

TEST(EngineOverlapTest, NextStepIsSubmittedBeforeTheOneBeforeIsCollected) {
  const auto f = Overlapped(50);
  const EngineFixture::Request r{.max_tokens = 6};
  EngineFixture::Handle h = f->Submit(r);
  EXPECT_TRUE(f->engine->Step());
  EXPECT_EQ(f->executor.submitted, 1);
  EXPECT_EQ(f->executor.steps, 0);
  for (int step = 2; step <= 6; ++step) {
    EXPECT_TRUE(f->engine->Step());
    EXPECT_EQ(f->executor.submitted, step);
    EXPECT_EQ(f->executor.steps, step - 1);
    h.Collect();
    EXPECT_EQ(h.tokens.size(), static_cast<size_t>(step - 1));
  }
  EXPECT_TRUE(f->engine->Step()) << "the last one is collected";
  EXPECT_FALSE(f->engine->Step());
  h.Collect();
  EXPECT_EQ(h.tokens, Alone(r));
  EXPECT_EQ(f->executor.submitted, 6) << "the last token is foreseen: no step too many";
  EXPECT_EQ(f->executor.overlapped_steps, 5);
}

TEST(EngineOverlapTest, StopTokenEndsOneStepLateAndDropsOneToken) {
  const EngineFixture::Request all{.prompt = Range(10, 8), .max_tokens = 12};
  const std::vector<TokenId> tokens = Alone(all);
  const auto f = Overlapped(50);
  EngineFixture::Request r = all;
  r.stop_tokens = {tokens[3]};
  EngineFixture::Handle h = f->Submit(r);
  while (!h.end.has_value()) {
    ASSERT_TRUE(f->engine->Step());
    h.Collect();
  }
  EXPECT_EQ(h.end->reason, FinishReason::kStopToken);
  EXPECT_EQ(h.end->usage.output_tokens, 4);
  EXPECT_EQ(h.tokens, std::vector<TokenId>(tokens.begin(), tokens.begin() + 4));
  EXPECT_TRUE(f->engine->idle());
  EXPECT_EQ(f->executor.submitted, f->executor.steps + 1);
  EXPECT_EQ(f->kv_pages(), 3u) << "a step reads them: eleven tokens and the one too many";
  EXPECT_TRUE(f->engine->Step());
  EXPECT_EQ(f->kv_pages(), 0u);
  EXPECT_FALSE(f->engine->Step());
  // What it leaves in the prefix cache is what the other loop leaves.
  r.stop_tokens.clear();
  r.prompt.insert(r.prompt.end(), tokens.begin(), tokens.begin() + 4);
  r.max_tokens = 3;
  EngineFixture::Handle next = f->Submit(r);
  f->RunUntilIdle();
  next.Collect();
  EXPECT_EQ(next.end->usage.cached_tokens, 8 + 3);
  EXPECT_EQ(next.tokens, Alone(r));
}

TEST(EngineOverlapTest, CancelEndsAtOnceAndKeepsPagesUntilTheStepIsOver) {
  const auto f = Overlapped(50);
  const auto adapter = FakeAdapter(1, 3);
  f->load_now = true;
  EngineFixture::Handle doomed =
      f->Submit({.prompt = Range(10, 8), .max_tokens = 30, .adapter = adapter});
  EngineFixture::Handle other = f->Submit({.max_tokens = 30});
  for (int i = 0; i < 5; ++i) f->engine->Step();
  f->engine->Cancel(*doomed.id);
  f->engine->Retire(adapter->id);
  f->executor.on_step = [&] {  // while the step that has it is collected
    EXPECT_TRUE(f->pool.adapters().IsResident(adapter->id));
    f->executor.on_step = nullptr;
  };
  f->engine->Step();
  doomed.Collect();
  ASSERT_TRUE(doomed.end.has_value());
  EXPECT_EQ(doomed.end->status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(adapter->activity->active.load(), 0);
  EXPECT_FALSE(f->pool.adapters().IsResident(adapter->id)) << "with the last step that read it";
  f->RunUntilIdle();
  other.Collect();
  EXPECT_EQ(other.tokens.size(), 30u);
}

TEST(EngineOverlapTest, RequestForTheHostMakesStepsSynchronous) {
  const auto f = Overlapped(50);
  const EngineFixture::Request plain{.prompt = Range(10, 5), .max_tokens = 20};
  EngineFixture::Request host{.prompt = Range(30, 5), .max_tokens = 6, .logprobs = 0};
  EngineFixture::Handle a = f->Submit(plain);
  for (int i = 0; i < 4; ++i) f->engine->Step();
  EXPECT_EQ(f->executor.overlapped_steps, 3);
  EngineFixture::Handle b = f->Submit(host);
  f->engine->Step();
  EXPECT_EQ(f->executor.overlapped_steps, 4) << "it may follow a step that is under way";
  EXPECT_EQ(f->executor.steps, f->executor.submitted) << "but none follows it";
  for (int i = 0; i < 4; ++i) f->engine->Step();
  EXPECT_EQ(f->executor.overlapped_steps, 4);
  f->RunUntilIdle();
  EXPECT_GT(f->executor.overlapped_steps, 10) << "it is over";
  a.Collect();
  b.Collect();
  EXPECT_EQ(a.tokens, Alone(plain));
  EXPECT_EQ(b.tokens, Alone(host));
}

TEST(EngineOverlapTest, ScoringIsSynchronousToo) {
  const auto f = Overlapped(50);
  EngineFixture::Handle h = f->Submit({.prompt = Range(10, 30), .score = true});
  while (f->engine->Step()) EXPECT_EQ(f->executor.steps, f->executor.submitted);
  h.Collect();
  EXPECT_EQ(h.scores.size(), 29u);
}

TEST(EngineOverlapTest, PreemptionWaitsUntilNothingIsUnderWay) {
  const auto f = Overlapped(16);
  const EngineFixture::Request a{.prompt = Range(10, 20), .max_tokens = 28};
  const EngineFixture::Request b{.prompt = Range(500, 20), .max_tokens = 28};
  EngineFixture::Handle first = f->Submit(a), second = f->Submit(b);
  f->RunUntilIdle();
  EXPECT_GT(f->observer.preemptions, 0);
  first.Collect();
  second.Collect();
  EXPECT_EQ(first.tokens, Alone(a));
  EXPECT_EQ(second.tokens, Alone(b));
  EXPECT_EQ(f->kv_pages(), 0u);
}

// Nothing runs any more, but a step under way still holds the pages that a request waits for.
TEST(EngineOverlapTest, NobodyIsRefusedForPagesThatComeBack) {
  const auto f = Overlapped(12);
  EngineFixture::Handle large = f->Submit({.prompt = Range(10, 30), .max_tokens = 18});
  for (int i = 0; i < 6; ++i) f->engine->Step();
  const EngineFixture::Request r{.prompt = Range(500, 36), .max_tokens = 4};
  EngineFixture::Handle next = f->Submit(r);
  f->engine->Step();
  f->engine->Cancel(*large.id);
  f->RunUntilIdle();
  next.Collect();
  EXPECT_EQ(next.tokens, Alone(r));
}

// Both computed the same prompt at the same time: the later one's pages are exchanged for the
// earlier one's while its next step, which reads the old ones, is under way.
TEST(EngineOverlapTest, ExchangedPagesStayUntilTheStepIsOver) {
  const auto f = Overlapped(50);
  const EngineFixture::Request r{.prompt = Range(10, 8), .max_tokens = 6};
  EngineFixture::Handle first = f->Submit(r), second = f->Submit(r);
  f->engine->Step();
  f->engine->Step();
  EXPECT_EQ(f->executor.steps, 1);
  // Two of the prompt shared, two that were exchanged, one each for the token under way.
  EXPECT_EQ(f->kv_pages(), 2u + 2u + 2u);
  f->engine->Step();
  EXPECT_EQ(f->kv_pages(), 2u + 2u);
  f->RunUntilIdle();
  first.Collect();
  second.Collect();
  EXPECT_EQ(first.tokens, Alone(r));
  EXPECT_EQ(second.tokens, first.tokens);
}

TEST(EngineOverlapTest, StreamTakesNoMoreThanItHasRoomFor) {
  const auto f = Overlapped(50);
  EngineFixture::Handle h = f->Submit({.max_tokens = 20, .capacity = 3});
  for (int i = 0; i < 20; ++i) f->engine->Step();
  EXPECT_EQ(f->executor.computed_tokens, 3 + 2) << "nothing is computed for a full stream";
  h.Collect();
  EXPECT_EQ(h.tokens.size(), 3u);
  while (!h.end.has_value()) {
    f->engine->Step();
    h.Collect();
  }
  EXPECT_EQ(h.tokens, Alone({.max_tokens = 20}));
}

TEST(EngineOverlapTest, DeviceThatFailsWithTwoStepsUnderWay) {
  for (const bool at_submit : {false, true}) {
    const auto f = Overlapped(50);
    f->load_now = true;
    (at_submit ? f->executor.fail_at_submit : f->executor.fail_at_step) = 6;
    std::vector<EngineFixture::Handle> handles;
    for (AdapterVersionId id = 1; id <= 3; ++id) {
      handles.push_back(f->Submit({.max_tokens = 20, .adapter = FakeAdapter(id, 2)}));
    }
    while (f->engine->healthy()) f->engine->Step();
    for (EngineFixture::Handle& h : handles) {
      h.Collect();
      ASSERT_TRUE(h.end.has_value());
      EXPECT_EQ(GetErrorDetail(h.end->status).reason, "DEVICE_FAILED");
    }
    EXPECT_EQ(f->kv_pages(), 0u);
    EXPECT_EQ(f->pool.adapters().stats().leased, 0u);
    EXPECT_FALSE(f->engine->Step());
  }
}

TEST(EngineOverlapTest, EngineThatStopsCollectsWhatIsUnderWay) {
  const auto f = Overlapped(60);
  f->engine->Start();
  EngineFixture::Handle h = f->Submit({.prompt = {1}, .max_tokens = 190});
  while (h.tokens.empty()) {
    for (StreamEvent& e : h.stream->WaitAndTake(std::chrono::milliseconds(100))) {
      if (e.token.has_value()) h.tokens.push_back(e.token->token);
      if (e.end.has_value()) h.end = std::move(e.end);
    }
  }
  f->engine->Stop();
  EXPECT_EQ(f->executor.steps, f->executor.submitted);
  EXPECT_EQ(f->kv_pages(), 0u);
  h.Collect();
  EXPECT_TRUE(h.end.has_value());
}

TEST(EngineOverlapTest, EngineMayGoWithAStepUnderWay) {
  const auto f = Overlapped(60);
  EngineFixture::Handle h = f->Submit({.prompt = Range(1, 12), .max_tokens = 10});
  for (int i = 0; i < 4; ++i) f->engine->Step();
  f->engine->Cancel(*h.id);
  f->engine.reset();
  EXPECT_EQ(f->kv_pages(), 0u);
}

// A step's time is that in which the device had nothing else to do.
TEST(EngineOverlapTest, StepsTakeNoLongerThanTheClock) {
  const auto f = Overlapped(60);
  f->executor.on_step = [&] { f->clock.Advance(std::chrono::milliseconds(10)); };
  EngineFixture::Handle h = f->Submit({.max_tokens = 11});
  const TimePoint start = f->clock.Now();
  f->RunUntilIdle();
  EXPECT_EQ(f->observer.steps, 11);
  EXPECT_EQ(f->observer.step_time, f->clock.Now() - start);
  EXPECT_EQ(f->observer.inter_token, std::vector<double>(10, 0.01));
}

TEST(EngineOverlapTest, PlanningBesideAStepTakesNoTime) {
  const auto f = Overlapped(60);
  f->clock.tick = std::chrono::milliseconds(1);
  const TimePoint start = f->clock.Now();
  EngineFixture::Handle h = f->Submit({.max_tokens = 50});
  f->RunUntilIdle();
  EXPECT_EQ(f->observer.steps, 50);
  EXPECT_LE(f->observer.step_time, f->clock.Now() - start);
}

}  // namespace
}  // namespace lorad
