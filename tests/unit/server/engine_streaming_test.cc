// Adapters that are used while the copy into their pages is under way.
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

struct StreamingTest : LoopTest {
  // A request on a cold adapter, and steps until its copy has begun.
  EngineFixture::Handle Begin(const EngineFixture::Request& r) {
    EngineFixture::Handle handle = f.Submit(r);
    f.engine->Step();
    f.FinishLoads();
    f.engine->Step();
    return handle;
  }
  StreamingTest() { f.stream_loads = true; }

  EngineFixture f{20};
  const std::shared_ptr<AdapterVersion> adapter = FakeAdapter(1, 4);
  const EngineFixture::Request request{
      .prompt = Range(10, 12), .max_tokens = 10, .adapter = adapter};
};
INSTANTIATE_TEST_SUITE_P(Loops, StreamingTest, testing::Bool(), LoopName);

TEST_P(StreamingTest, AdapterIsUsedWhileItFills) {
  EngineFixture::Handle handle = Begin(request);
  EXPECT_EQ(adapter->activity->state.load(), AdapterState::kResident);
  handle.Collect();
  EXPECT_EQ(f.executor.streamed_uses, 1);
  EXPECT_EQ(f.pool.adapters().stats().loads, 0u);
  f.engine->Step();
  EXPECT_EQ(f.executor.streamed_uses, 2) << "as long as it is not done";
  f.FinishTransfers();
  f.RunUntilIdle();
  EXPECT_EQ(f.executor.streamed_uses, 2);
  EXPECT_EQ(f.pool.adapters().stats().loads, 1u);
  handle.Collect();
  EngineFixture alone(50);
  EngineFixture::Request same = request;
  same.adapter = FakeAdapter(1, 4);
  EXPECT_EQ(handle.tokens, alone.RunAlone(same));
}

TEST_P(StreamingTest, TransferThatIsDoneIsLetGo) {
  f.engine->Preload(adapter);
  f.engine->Step();
  f.FinishLoads();
  f.engine->Step();
  const std::weak_ptr<ImageTransfer> transfer = f.transfers.at(0);
  EXPECT_FALSE(transfer.expired());
  EXPECT_TRUE(f.pool.adapters().IsFilling(1));
  f.FinishTransfers();
  f.engine->Step();
  EXPECT_TRUE(transfer.expired());
  EXPECT_TRUE(f.pool.adapters().IsEvictable(1));
}

TEST_P(StreamingTest, PagesThatFillAreNotEvicted) {
  EngineFixture::Handle handle = Begin({.prompt = {1}, .max_tokens = 1, .adapter = adapter});
  f.engine->Step();
  handle.Collect();
  ASSERT_TRUE(handle.end.has_value()) << "its request is over, its copy is not";
  EngineFixture::Handle large = f.Submit({.prompt = Range(10, 70), .max_tokens = 5});
  for (int i = 0; i < 5; ++i) f.engine->Step();
  EXPECT_TRUE(f.pool.adapters().IsFilling(1));
  large.Collect();
  EXPECT_FALSE(large.end.has_value()) << "there will be room: it is not refused";
  EXPECT_EQ(f.observer.evictions, 0);
  f.RunUntilIdle();
  large.Collect();
  EXPECT_EQ(large.tokens.size(), 5u);
  EXPECT_EQ(f.observer.evictions, 1);
}

TEST_P(StreamingTest, RetiredVersionStaysUntilItsCopyEnds) {
  f.engine->Preload(adapter);
  f.engine->Step();
  f.FinishLoads();
  f.engine->Step();
  f.engine->Retire(adapter->id);
  f.engine->Step();
  EXPECT_EQ(f.pool.states().free, 16u);
  f.FinishTransfers();
  f.engine->Step();
  EXPECT_EQ(f.pool.states().free, 20u);
  EXPECT_EQ(adapter->activity->state.load(), AdapterState::kStored);
}

TEST_P(StreamingTest, CancelledRequestLeavesItsAdapterFilling) {
  EngineFixture::Handle handle = Begin(request);
  f.engine->Cancel(*handle.id);
  f.engine->Step();
  EXPECT_TRUE(f.pool.adapters().IsFilling(1));
  EXPECT_FALSE(f.pool.adapters().IsIdle(1));
  f.RunUntilIdle();
  EXPECT_TRUE(f.pool.adapters().IsIdle(1));
}

TEST_P(StreamingTest, FailedCopyBreaksTheDevice) {
  f.transfer_status = absl::InternalError("the bus is on fire");
  EngineFixture::Handle handle = Begin(request);
  EngineFixture::Handle other = f.Submit({.max_tokens = 20});
  f.engine->Step();
  f.FinishTransfers();
  EXPECT_FALSE(f.engine->Step());
  EXPECT_FALSE(f.engine->healthy());
  for (EngineFixture::Handle* h : {&handle, &other}) {
    h->Collect();
    ASSERT_TRUE(h->end.has_value());
    EXPECT_EQ(GetErrorDetail(h->end->status).reason, "DEVICE_FAILED");
  }
}

TEST_P(StreamingTest, EngineThatStopsWaitsForItsCopies) {
  EngineFixture::Handle handle = Begin(request);
  f.engine.reset();
  EXPECT_TRUE(f.transfers.at(0).expired());
  EXPECT_EQ(f.memory.adapter.size(), 4u);
}

TEST_P(StreamingTest, LoadWaitsForItsCopyBeforeItCountsAsDone) {
  f.engine->Preload(adapter);
  f.engine->Step();
  f.clock.Advance(std::chrono::seconds(1));
  f.FinishLoads();
  f.engine->Step();
  f.clock.Advance(std::chrono::seconds(1));
  f.FinishTransfers();
  f.engine->Step();
  EXPECT_EQ(f.pool.adapters().seconds_per_page(), 0.5);
}

// What is free is spoilt: a page that was freed too early would show.
TEST(PoisonTest, FreedPagesAreSpoilt) {
  EngineFixture f(50);
  f.RunAlone({.prompt = Range(10, 12), .tenant = "acme"});
  const int before = f.executor.poisoned_pages;
  f.engine->SetPinned(FakeAdapter(1, 50), true);  // all else goes
  f.RunUntilIdle();
  f.engine->Step();
  EXPECT_GE(f.executor.poisoned_pages, before + 3);
  EXPECT_TRUE(f.memory.kv.empty());
}

}  // namespace
}  // namespace lorad
