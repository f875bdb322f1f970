#include "server/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <thread>

#include "memory/base/error_detail.h"
#include "tests/unit/server/fake_engine_parts.h"

namespace lorad {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;
using Request = EngineFixture::Request;
using Handle = EngineFixture::Handle;

std::string ReasonOf(const absl::Status& status) { return GetErrorDetail(status).reason; }

using EngineTest = LoopTest;
INSTANTIATE_TEST_SUITE_P(Loops, EngineTest, testing::Bool(), LoopName);

TEST_P(EngineTest, GeneratesUpToMaxTokens) {
  EngineFixture f(50);
  Handle h = f.Submit({.max_tokens = 7});
  ASSERT_TRUE(h.id.ok());
  f.RunUntilIdle();
  h.Collect();
  ASSERT_TRUE(h.end.has_value());
  EXPECT_TRUE(h.end->status.ok());
  EXPECT_EQ(h.end->reason, FinishReason::kLength);
  EXPECT_THAT(h.tokens, SizeIs(7));
  EXPECT_EQ(h.end->usage.prompt_tokens, 3);
  EXPECT_EQ(h.end->usage.output_tokens, 7);
  EXPECT_EQ(f.kv_pages(), 0u);
  EXPECT_EQ(f.pool.available_pages(), 50u);
}

TEST_P(EngineTest, StopTokenEndsTheOutputAndIsReported) {
  EngineFixture f(50);
  const std::vector<TokenId> all = f.RunAlone({.max_tokens = 10});
  Handle h = f.Submit({.max_tokens = 10, .stop_tokens = {all[4]}});
  f.RunUntilIdle();
  h.Collect();
  ASSERT_TRUE(h.end.has_value());
  EXPECT_EQ(h.end->reason, FinishReason::kStopToken);
  EXPECT_EQ(h.end->stop_token, all[4]);
  EXPECT_EQ(h.tokens, std::vector<TokenId>(all.begin(), all.begin() + 5));
}

TEST_P(EngineTest, TokensDoNotDependOnCompanyOrPreemption) {
  std::mt19937 rng(7);
  const auto random = [&rng](int lo, int hi) {
    return std::uniform_int_distribution<int>(lo, hi)(rng);
  };
  std::map<int, std::shared_ptr<AdapterVersion>> adapters;
  for (int a = 1; a <= 5; ++a) {
    adapters[a] = FakeAdapter(static_cast<uint64_t>(a), static_cast<uint32_t>(random(1, 6)));
  }
  std::vector<Request> requests;
  for (int i = 0; i < 40; ++i) {
    Request r;
    r.prompt.resize(static_cast<size_t>(random(1, 40)));
    for (TokenId& t : r.prompt) t = random(0, kFakeVocab - 1);
    r.max_tokens = random(1, 40);
    const int a = random(0, 5);
    if (a > 0) r.adapter = adapters[a];
    requests.push_back(std::move(r));
  }
  EngineFixture alone(200);
  alone.executor.overlaps = false;
  EngineFixture crowded(40);  // too few pages for all: preemptions and evictions
  std::vector<Handle> handles;
  for (const Request& r : requests) handles.push_back(crowded.Submit(r));
  crowded.RunUntilIdle();
  EXPECT_GT(crowded.observer.preemptions, 0);
  EXPECT_GT(crowded.observer.evictions, 0);
  EXPECT_GT(crowded.executor.max_sequences, 3u);
  for (size_t i = 0; i < requests.size(); ++i) {
    handles[i].Collect();
    ASSERT_TRUE(handles[i].end.has_value() && handles[i].end->status.ok());
    EXPECT_EQ(handles[i].tokens, alone.RunAlone(requests[i])) << "request " << i;
  }
  EXPECT_EQ(crowded.kv_pages(), 0u);
}

TEST_P(EngineTest, OneLoadServesAllWhoWaitForIt) {
  EngineFixture f(50);
  const auto adapter = FakeAdapter(1, 3);
  std::vector<Handle> handles;
  for (int i = 0; i < 5; ++i) handles.push_back(f.Submit({.adapter = adapter}));
  Handle base = f.Submit({});
  f.engine->Step();
  f.engine->Step();
  EXPECT_EQ(f.loads_started, 1);
  base.Collect();
  EXPECT_FALSE(base.tokens.empty()) << "a cold adapter held up the base model";
  f.RunUntilIdle();
  EXPECT_EQ(f.loads_started, 1);
  for (Handle& h : handles) {
    h.Collect();
    EXPECT_THAT(h.tokens, SizeIs(5));
  }
}

TEST_P(EngineTest, FailedLoadFailsItsRequestsOnly) {
  EngineFixture f(50);
  const auto bad = FakeAdapter(1, 3);
  Handle waiting = f.Submit({.adapter = bad});
  Handle base = f.Submit({.max_tokens = 20});
  f.engine->Step();
  f.FinishLoads(absl::DataLossError("bits rot"));
  f.engine->Step();
  waiting.Collect();
  ASSERT_TRUE(waiting.end.has_value());
  EXPECT_EQ(waiting.end->status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(f.pool.pages().pages_in_use(PageUse::kAdapter), 0u);
  f.RunUntilIdle();
  base.Collect();
  EXPECT_THAT(base.tokens, SizeIs(20));
  Handle again = f.Submit({.adapter = bad});  // the next request tries again
  f.RunUntilIdle();
  again.Collect();
  EXPECT_TRUE(again.end.has_value() && again.end->status.ok());
}

TEST_P(EngineTest, OldVersionRunsOnWhileTheNewOneServes) {
  EngineFixture f(60);
  const auto v1 = FakeAdapter(1, 3), v2 = FakeAdapter(2, 3);
  const auto expected1 = f.RunAlone({.max_tokens = 30, .adapter = v1});
  const auto expected2 = f.RunAlone({.max_tokens = 30, .adapter = v2});
  ASSERT_NE(expected1, expected2);
  Handle old = f.Submit({.max_tokens = 30, .adapter = v1});
  for (int i = 0; i < 5; ++i) f.engine->Step();
  Handle fresh = f.Submit({.max_tokens = 30, .adapter = v2});
  f.engine->Retire(1);  // replaced: nobody can name it any more
  f.RunUntilIdle();
  old.Collect();
  fresh.Collect();
  EXPECT_EQ(old.tokens, expected1);
  EXPECT_EQ(fresh.tokens, expected2);
  EXPECT_EQ(f.pool.pages().pages_in_use(PageUse::kAdapter), 3u)
      << "the old image went with its last request";
}

TEST_P(EngineTest, RequestLargerThanThePoolIsRefusedAtOnce) {
  EngineFixture f(10);
  const Handle prompt = f.Submit({.prompt = std::vector<TokenId>(100, 1), .max_tokens = 10});
  EXPECT_EQ(prompt.id.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(prompt.id.status()), "LARGER_THAN_POOL");
  const Handle adapter = f.Submit({.adapter = FakeAdapter(1, 9)});
  EXPECT_EQ(ReasonOf(adapter.id.status()), "LARGER_THAN_POOL");
  EXPECT_TRUE(f.engine->idle());
}

TEST_P(EngineTest, BadRequestsAreNamed) {
  EngineFixture f(500);
  EXPECT_EQ(GetErrorDetail(f.Submit({.prompt = {}}).id.status()).field, "prompt");
  EXPECT_EQ(GetErrorDetail(f.Submit({.max_tokens = 0}).id.status()).field, "max_tokens");
  EXPECT_EQ(
      ReasonOf(f.Submit({.prompt = std::vector<TokenId>(199, 1), .max_tokens = 2}).id.status()),
      "PROMPT_TOO_LONG");
  EXPECT_TRUE(f.Submit({.prompt = std::vector<TokenId>(198, 1), .max_tokens = 2}).id.ok());
  f.RunUntilIdle();
}

TEST_P(EngineTest, FullQueueRefusesWithRetryAdvice) {
  EngineFixture f(50, [](EngineOptions* o) { o->max_waiting = 3; });
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(f.Submit({}).id.ok());
  const Handle h = f.Submit({});
  EXPECT_EQ(h.id.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(h.id.status()), "QUEUE_FULL");
  EXPECT_TRUE(GetErrorDetail(h.id.status()).retry_after.has_value());
  f.RunUntilIdle();
  EXPECT_TRUE(f.Submit({}).id.ok());
  f.RunUntilIdle();
}

TEST_P(EngineTest, CancelAtAnyStepFreesEverything) {
  for (int at = 0; at < 12; ++at) {
    EngineFixture f(50);
    Handle doomed = f.Submit(
        {.prompt = std::vector<TokenId>(30, 5), .max_tokens = 20, .adapter = FakeAdapter(1, 3)});
    Handle other = f.Submit({.max_tokens = 12});
    for (int i = 0; i < at; ++i) {
      f.engine->Step();
      if (i == 3) f.FinishLoads();
    }
    f.engine->Cancel(*doomed.id);
    f.engine->Step();
    doomed.Collect();
    ASSERT_TRUE(doomed.end.has_value()) << "cancelled before step " << at;
    EXPECT_EQ(doomed.end->status.code(), absl::StatusCode::kCancelled);
    f.RunUntilIdle();
    other.Collect();
    EXPECT_THAT(other.tokens, SizeIs(12));
    EXPECT_EQ(f.kv_pages(), 0u);
    f.engine->Cancel(*doomed.id);  // late and double cancels are harmless
    f.engine->Step();
  }
}

TEST_P(EngineTest, DeadlinesEndWaitingAndRunningRequests) {
  EngineFixture f(50);
  const TimePoint soon = f.clock.Now() + std::chrono::milliseconds(10);
  Handle running = f.Submit({.max_tokens = 100, .deadline = soon});
  Handle waiting = f.Submit({.adapter = FakeAdapter(1, 3), .deadline = soon});
  Handle unhurried = f.Submit({.max_tokens = 30});
  f.engine->Step();
  f.engine->Step();
  f.clock.Advance(std::chrono::milliseconds(20));
  f.engine->Step();
  for (Handle* h : {&running, &waiting}) {
    h->Collect();
    ASSERT_TRUE(h->end.has_value());
    EXPECT_EQ(h->end->status.code(), absl::StatusCode::kDeadlineExceeded);
  }
  EXPECT_GT(running.end->usage.output_tokens, 0);
  f.RunUntilIdle();
  unhurried.Collect();
  EXPECT_THAT(unhurried.tokens, SizeIs(30));
}

// Whoever steps by hand, as the simulator does, has it all on one thread and the same each time.
TEST_P(EngineTest, SteppedByHandItNotifiesInOrderOfArrival) {
  EngineFixture f(50);
  const TimePoint soon = f.clock.Now() + std::chrono::milliseconds(10);
  std::vector<Handle> handles;
  std::vector<size_t> notified, expected;
  for (size_t i = 0; i < 10; ++i) {
    // Those that run and those that wait.
    handles.push_back(i < 5 ? f.Submit({.max_tokens = 100, .deadline = soon})
                            : f.Submit({.adapter = FakeAdapter(i, 3), .deadline = soon}));
    expected.push_back(i);
  }
  f.engine->Step();
  for (size_t i = 0; i < handles.size(); ++i) {
    handles[i].stream->SetListener([&notified, i] { notified.push_back(i); });
  }
  f.clock.Advance(std::chrono::milliseconds(20));
  f.engine->Step();
  EXPECT_EQ(notified, expected);
}

TEST_P(EngineTest, SlowReaderIsPausedThenEndedAndStopsNobody) {
  EngineFixture f(80, [](EngineOptions* o) { o->slow_reader_timeout = std::chrono::seconds(5); });
  Handle slow = f.Submit({.max_tokens = 100, .capacity = 4});
  Handle fast = f.Submit({.max_tokens = 60});
  for (int i = 0; i < 70; ++i) f.engine->Step();
  fast.Collect();
  EXPECT_THAT(fast.tokens, SizeIs(60));
  slow.Collect();  // reads once: goes on
  const size_t first = slow.tokens.size();
  EXPECT_EQ(first, 4u);
  for (int i = 0; i < 10; ++i) f.engine->Step();
  slow.Collect();
  EXPECT_GT(slow.tokens.size(), first);
  for (int i = 0; i < 10; ++i) f.engine->Step();
  f.clock.Advance(std::chrono::seconds(6));
  f.engine->Step();
  slow.Collect();
  ASSERT_TRUE(slow.end.has_value());
  EXPECT_EQ(ReasonOf(slow.end->status), "SLOW_CONSUMER");
  EXPECT_EQ(f.kv_pages(), 0u);
}

TEST_P(EngineTest, ScoresEveryPromptTokenButTheFirst) {
  EngineFixture f(50);
  Handle h = f.Submit({.prompt = std::vector<TokenId>(20, 3), .score = true});
  Handle other = f.Submit({.max_tokens = 9});
  f.RunUntilIdle();
  h.Collect();
  other.Collect();
  ASSERT_TRUE(h.end.has_value());
  EXPECT_EQ(h.end->reason, FinishReason::kScored);
  ASSERT_THAT(h.scores, SizeIs(19));
  for (size_t i = 0; i < h.scores.size(); ++i) {
    EXPECT_EQ(h.scores[i].logprob, -static_cast<float>(i)) << "from the position before";
  }
  EXPECT_THAT(h.tokens, IsEmpty());
}

TEST_P(EngineTest, DeviceFailureEndsAllAndIsUnhealthy) {
  EngineFixture f(50);
  std::vector<Handle> handles;
  for (int i = 0; i < 3; ++i) handles.push_back(f.Submit({.max_tokens = 20}));
  handles.push_back(f.Submit({.adapter = FakeAdapter(1, 2)}));
  f.executor.fail_at_step = 4;
  for (int i = 0; i < 5; ++i) f.engine->Step();
  for (Handle& h : handles) {
    h.Collect();
    ASSERT_TRUE(h.end.has_value());
    EXPECT_EQ(h.end->status.code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_FALSE(f.engine->healthy());
  EXPECT_EQ(f.Submit({}).id.status().code(), absl::StatusCode::kUnavailable);
}

TEST_P(EngineTest, DrainRefusesNewAndFinishesOld) {
  EngineFixture f(50);
  Handle old = f.Submit({.max_tokens = 10});
  f.engine->BeginDrain();
  EXPECT_EQ(ReasonOf(f.Submit({}).id.status()), "SHUTTING_DOWN");
  f.RunUntilIdle();
  old.Collect();
  EXPECT_THAT(old.tokens, SizeIs(10));
}

TEST_P(EngineTest, PreloadMakesResidentWithoutARequest) {
  EngineFixture f(50);
  f.load_now = true;
  const auto adapter = FakeAdapter(1, 3);
  f.engine->Preload(adapter);
  f.engine->Step();
  f.engine->Step();
  const EngineSnapshot snapshot = f.engine->Snapshot();
  ASSERT_THAT(snapshot.adapters, SizeIs(1));
  EXPECT_EQ(snapshot.adapters[0].state, AdapterState::kResident);
  EXPECT_EQ(snapshot.adapters[0].pages, 3u);
}

// The loop on its own thread, with clients on others: what ThreadSanitizer watches.
TEST_P(EngineTest, ManyClientsOnThreads) {
  EngineFixture f(60);
  f.load_now = true;
  std::vector<std::shared_ptr<AdapterVersion>> adapters;
  for (uint64_t a = 1; a <= 6; ++a) adapters.push_back(FakeAdapter(a, 5));
  f.engine->Start();
  std::vector<std::thread> clients;
  std::atomic<int> ended{0}, accepted{0};
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([&, c] {
      std::mt19937 rng(static_cast<unsigned>(c));
      for (int i = 0; i < 40; ++i) {
        Request r{.prompt = std::vector<TokenId>(1 + rng() % 20, static_cast<TokenId>(rng() % 100)),
                  .max_tokens = 1 + static_cast<int>(rng() % 20)};
        if (rng() % 3 != 0) r.adapter = adapters[rng() % adapters.size()];
        Handle h = f.Submit(r);
        if (!h.id.ok()) continue;
        ++accepted;
        if (rng() % 4 == 0) f.engine->Cancel(*h.id);
        if (rng() % 8 == 0) f.engine->Snapshot();
        while (!h.end.has_value()) {
          for (StreamEvent& e : h.stream->WaitAndTake(std::chrono::milliseconds(100))) {
            if (e.end.has_value()) h.end = e.end;
          }
        }
        ++ended;
      }
    });
  }
  for (std::thread& t : clients) t.join();
  f.engine->Stop();
  EXPECT_EQ(ended, accepted);
  EXPECT_GT(accepted, 100);
  EXPECT_EQ(f.kv_pages(), 0u);
  EXPECT_TRUE(f.engine->ValidateBooks().ok());
}

TEST_P(EngineTest, StopEndsWhatRuns) {
  EngineFixture f(60);
  f.engine->Start();
  Handle h = f.Submit({.prompt = {1}, .max_tokens = 190});
  Handle cold = f.Submit({.adapter = FakeAdapter(1, 3)});
  f.engine->Stop();
  for (Handle* handle : {&h, &cold}) {
    handle->Collect();
    ASSERT_TRUE(handle->end.has_value());
  }
  EXPECT_EQ(cold.end->status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(f.Submit({}).id.status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace lorad
