// What the simulated device notices, and what time it takes.
#include "tests/simulation/simulated_executor.h"

#include <gtest/gtest.h>

#include "tests/simulation/simulated_transfer.h"
#include "tests/simulation/token_chain.h"

namespace lorad::sim {
namespace {

class SimulatedExecutorTest : public testing::Test {
 protected:
  SimulatedExecutorTest() { image_.layouts.resize(1); }

  // One sequence's step; returns its token.
  TokenId Run(SequenceInput s, std::vector<TokenId> tokens, std::vector<uint32_t> pages,
              std::vector<kernels::PageCopy> copies = {}) {
    const Sampler sampler({.seed = SeedFor(0, 1000)}, {}, kSimVocab);
    s.tokens = tokens;
    s.kv_pages = pages;
    s.sampler = &sampler;
    std::vector<SequenceResult> results;
    const SequenceInput all[] = {s};
    EXPECT_TRUE(executor_.Execute({.sequences = all, .page_copies = copies}, &results).ok());
    return results[0].sample->token;
  }
  static std::vector<TokenId> Text(int count, uint64_t key = 1) {
    std::vector<TokenId> text;
    for (int i = 0; i < count; ++i) text.push_back(TextToken(key, i));
    return text;
  }

  CostModel cost_ = *FindCostModel("cpu");  // 16 tokens a page
  VirtualClock clock_;
  SimulatedExecutor executor_{cost_, &clock_, 20, 3};
  AdapterImage image_;
};

TEST_F(SimulatedExecutorTest, TokenFollowsFromTheTextAlone) {
  const TokenId whole = Run({}, Text(40), {1, 2, 3});
  const std::vector<TokenId> text = Text(40);
  Run({}, {text.begin(), text.begin() + 23}, {4, 5});
  EXPECT_EQ(Run({.first_position = 23}, {text.begin() + 23, text.end()}, {4, 5, 6}), whole);
  EXPECT_NE(Run({}, Text(40, 2), {7, 8, 9}), whole);
  // From a page that another computed, and from a copy of half of one.
  EXPECT_EQ(Run({.first_position = 16}, {text.begin() + 16, text.end()}, {1, 10, 11}), whole);
  EXPECT_EQ(Run({.first_position = 30}, {text.begin() + 30, text.end()}, {1, 12, 13},
                {{.from = 5, .to = 12}}),
            whole);
  EXPECT_EQ(executor_.fault(), "");
}

TEST_F(SimulatedExecutorTest, OverwrittenPageIsFound) {
  Run({}, Text(60), {1, 2, 3, 4});
  Run({}, Text(16, 2), {3});
  for (int i = 60; i < 64; ++i) Run({.first_position = i}, {5}, {1, 2, 3, 4});
  EXPECT_NE(executor_.fault(), "");
}

TEST_F(SimulatedExecutorTest, WrongPageChangesTheToken) {
  const TokenId right = Run({}, Text(33), {1, 2, 3});
  Run({}, Text(32), {1, 2});
  Run({}, Text(32, 9), {4, 5});
  EXPECT_NE(Run({.first_position = 32}, {TextToken(1, 32)}, {1, 5, 6}), right);
}

TEST_F(SimulatedExecutorTest, PagesOfAnotherAdapterAreFound) {
  const std::vector<uint32_t> pages = {7, 8};
  image_.layouts[0].pages = 2;
  executor_.PlaceAdapter(2, pages);
  const AdapterUse use[] = {{.image = &image_, .pages = pages}};
  Run({.adapters = use}, Text(5), {1});
  EXPECT_EQ(executor_.fault(), "");
  executor_.PlaceAdapter(3, std::vector<uint32_t>{8});
  Run({.first_position = 5, .adapters = use}, {3}, {1});
  EXPECT_NE(executor_.fault(), "");
}

TEST_F(SimulatedExecutorTest, StepTakesItsTimeAndWaitsForItsAdapter) {
  Run({}, Text(100), {1, 2, 3, 4, 5, 6, 7});
  EXPECT_NEAR(SecondsAt(clock_.Now()), cost_.host_s + executor_.busy_s(), 1e-6);
  EXPECT_GT(executor_.busy_s(), 0.04);
  image_.layouts[0].pages = 1;
  const std::vector<uint32_t> pages = {9};
  executor_.PlaceAdapter(1, pages);
  std::vector<std::unique_ptr<kernels::AdapterTransfer>> ranks;
  ranks.push_back(std::make_unique<SimulatedTransfer>(&clock_, clock_.Now() + For(3)));
  const ImageTransfer transfer(std::move(ranks), nullptr);
  EXPECT_FALSE(transfer.Done());
  const AdapterUse use[] = {{.image = &image_, .pages = pages, .transfer = &transfer}};
  const double before = SecondsAt(clock_.Now());
  Run({.adapters = use}, Text(5), {1});
  EXPECT_NEAR(SecondsAt(clock_.Now()), before + 3, 1e-6);
  EXPECT_TRUE(transfer.Done());
}

}  // namespace
}  // namespace lorad::sim
