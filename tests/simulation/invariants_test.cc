// The checks themselves: what is broken is found.
#include "tests/simulation/invariants.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/simulation/overtake_count.h"
#include "tests/simulation/token_chain.h"

namespace lorad::sim {
namespace {

using testing::HasSubstr;

class InvariantsTest : public testing::Test {
 protected:
  // A step of so many prompts of so many tokens each.
  void Run(int sequences, int tokens) {
    std::vector<std::vector<TokenId>> texts;
    std::vector<std::vector<uint32_t>> pages;
    std::vector<SequenceInput> inputs(static_cast<size_t>(sequences));
    for (int i = 0; i < sequences; ++i) {
      texts.emplace_back(static_cast<size_t>(tokens), i + 1);
      pages.push_back({static_cast<uint32_t>(i)});
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
      inputs[i].tokens = texts[i];
      inputs[i].kv_pages = pages[i];
    }
    std::vector<SequenceResult> results;
    ASSERT_TRUE(executor_.Execute({.sequences = inputs}, &results).ok());
  }
  std::string Check(Invariants::AfterStep after = {.ran = true}) {
    return std::string(invariants_.Check(after, executor_).message());
  }

  const CostModel cost_ = *FindCostModel("cpu");
  const SchedulerPolicy policy_{.max_step_tokens = 20, .max_sequences = 4, .max_chunk_tokens = 8};
  UnifiedPool pool_{20, 4096, {}};
  VirtualClock clock_;
  SimulatedExecutor executor_{cost_, &clock_, 20, 1};
  Invariants invariants_{policy_, &pool_};
};

TEST_F(InvariantsTest, StepsWithinTheirBudgetsAreRight) {
  Run(4, 5);
  EXPECT_EQ(Check(), "");
  Run(2, 8);
  EXPECT_EQ(Check(), "");
}

TEST_F(InvariantsTest, TooManyTokens) {
  Run(3, 7);
  EXPECT_THAT(Check(), HasSubstr("I1"));
}

TEST_F(InvariantsTest, TooManySequences) {
  Run(5, 1);
  EXPECT_THAT(Check(), HasSubstr("I1"));
}

TEST_F(InvariantsTest, TooLongAChunk) {
  Run(1, 9);
  EXPECT_THAT(Check(), HasSubstr("I1"));
}

TEST_F(InvariantsTest, NothingGoesOnAlthoughSomethingWaits) {
  const Invariants::AfterStep stuck{.unfinished = 1};
  EXPECT_EQ(Check(stuck), "");
  EXPECT_EQ(Check(stuck), "");
  EXPECT_EQ(Check({.loads = true, .unfinished = 1}), "") << "its adapter comes";
  EXPECT_EQ(Check(stuck), "");
  EXPECT_EQ(Check(stuck), "");
  EXPECT_THAT(Check(stuck), HasSubstr("I4"));
}

TEST_F(InvariantsTest, NothingGoesOnWhileASlowReaderIsWaitedFor) {
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(Check({.slow_readers = true, .unfinished = 1}), "");
  }
}

TEST_F(InvariantsTest, NobodyIsAdmittedForTooLong) {
  constexpr int kLongest = 3;
  Invariants bounded(policy_, &pool_, kLongest);
  const auto check = [&](Invariants::AfterStep after) {
    return std::string(bounded.Check(after, executor_).message());
  };
  Invariants::AfterStep after{.ran = true, .unfinished = 2, .waiting = 1};
  const int most = policy_.max_sequences * kLongest * (policy_.max_preemptions + 2);
  for (int i = 0; i < most; ++i) EXPECT_EQ(check(after), "");
  after.moves = 1;  // somebody was
  for (int i = 0; i <= most; ++i) EXPECT_EQ(check(after), "");
  EXPECT_THAT(check(after), HasSubstr("I5"));
}

TEST_F(InvariantsTest, WhatIsLeftOver) {
  EXPECT_TRUE(invariants_.CheckDrained().ok());
  {
    PageList kept(&pool_.pages(), PageUse::kKv);
    ASSERT_TRUE(kept.Grow(1));
    EXPECT_THAT(invariants_.CheckDrained().message(), HasSubstr("I2"));
  }
  EXPECT_TRUE(invariants_.CheckDrained().ok());
}

TEST(OvertakeCountTest, OfTheOldestInTheirLine) {
  OvertakeCount count;
  const OvertakeCount::Line line{.tenant = 1}, other{.tenant = 2};
  for (size_t request = 1; request <= 5; ++request) count.Wait(line, request);
  count.Wait(other, 6);
  EXPECT_EQ(count.Admit(line, 1), 0) << "in order";
  EXPECT_EQ(count.Admit(line, 4), 1) << "before 2 and 3";
  EXPECT_EQ(count.Admit(other, 6), 0);
  count.Leave(line, 2);
  EXPECT_EQ(count.Admit(line, 5), 2) << "before 3, once more";
  EXPECT_EQ(count.Admit(line, 3), 0);
}

}  // namespace
}  // namespace lorad::sim
