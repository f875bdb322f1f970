#include "scheduler/tenant_ledger.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace lorad {
namespace {

constexpr Priority kStandard = Priority::kStandard;
constexpr Priority kBatch = Priority::kBatch;
constexpr uint64_t kToken = 8;  // of weight 1 and price 1

TEST(TenantLedgerTest, TokensHaveTheirPrices) {
  TenantLedger ledger(SchedulerPolicy{.input_price = 1, .output_price = 2, .cached_price = 0.25});
  const TenantIndex a = ledger.Arrive("a", 1, kStandard);
  const TenantLedger::Tokens tokens{.input = 100, .cached = 40, .output = 7};
  EXPECT_EQ(ledger.Cost(a, kStandard, tokens), (100 + 10 + 14) * kToken);
  ledger.Charge(a, kStandard, tokens);
  EXPECT_EQ(ledger.counter(a, kStandard), (100 + 10 + 14) * kToken);
}

TEST(TenantLedgerTest, WeightsDivideExactlyHoweverTheChargesAreCut) {
  TenantLedger ledger(SchedulerPolicy{});
  const TenantIndex whole = ledger.Arrive("whole", 7, kStandard);
  const TenantIndex cut = ledger.Arrive("cut", 7, kStandard);
  const TenantIndex heavy = ledger.Arrive("heavy", 1000, kStandard);
  for (int i = 0; i < 7000; ++i) ledger.Charge(cut, kStandard, {.input = 1});
  for (int i = 0; i < 125; ++i) ledger.Charge(heavy, kStandard, {.input = 1});
  ledger.Charge(whole, kStandard, {.input = 7000});
  EXPECT_EQ(ledger.counter(whole, kStandard), 1000 * kToken);
  EXPECT_EQ(ledger.counter(cut, kStandard), 1000 * kToken);
  EXPECT_EQ(ledger.counter(heavy, kStandard), 1u) << "an eighth of a token";
}

TEST(TenantLedgerTest, WhoBecomesActiveIsLiftedToTheLeastOfTheActive) {
  TenantLedger ledger(SchedulerPolicy{});
  const TenantIndex a = ledger.Arrive("a", 1, kStandard);
  const TenantIndex b = ledger.Arrive("b", 1, kStandard);
  ledger.Charge(a, kStandard, {.input = 300});
  ledger.Charge(b, kStandard, {.input = 200});
  const TenantIndex c = ledger.Arrive("c", 1, kStandard);
  EXPECT_EQ(ledger.counter(c, kStandard), 200 * kToken);
  EXPECT_EQ(ledger.spread(), 100);
  // Who is ahead already stays there.
  ledger.Leave(a, kStandard);
  EXPECT_EQ(ledger.Arrive("a", 1, kStandard), a);
  EXPECT_EQ(ledger.counter(a, kStandard), 300 * kToken);
}

// Without this branch a tenant that was silent would be owed all that others had meanwhile.
TEST(TenantLedgerTest, AfterASilenceAllBeginWhereTheLastOneLeft) {
  TenantLedger ledger(SchedulerPolicy{});
  const TenantIndex a = ledger.Arrive("a", 1, kStandard);
  ledger.Charge(a, kStandard, {.input = 300});
  ledger.Leave(a, kStandard);
  const TenantIndex b = ledger.Arrive("b", 1, kStandard);
  EXPECT_EQ(ledger.counter(b, kStandard), 300 * kToken);
}

TEST(TenantLedgerTest, ClassesHaveCountersOfTheirOwn) {
  TenantLedger ledger(SchedulerPolicy{});
  ledger.Arrive("late", 1, kBatch);  // waits, and is never served
  const TenantIndex a = ledger.Arrive("a", 1, kStandard);
  ledger.Charge(a, kStandard, {.input = 300});
  const TenantIndex b = ledger.Arrive("b", 1, kStandard);
  EXPECT_EQ(ledger.counter(b, kStandard), 300 * kToken) << "not lifted to that of class batch";
  EXPECT_EQ(ledger.floor(kBatch), 0u);
}

TEST(TenantLedgerTest, ForgettingIdleTenantsChangesNothing) {
  TenantLedger ledger(SchedulerPolicy{});
  const TenantIndex busy = ledger.Arrive("busy", 1, kStandard);
  ledger.Leave(ledger.Arrive("even", 1, kStandard), kStandard);
  const TenantIndex ahead = ledger.Arrive("ahead", 1, kStandard);
  ledger.Charge(ahead, kStandard, {.input = 5'000'000});
  ledger.Leave(ahead, kStandard);
  for (size_t i = 0; i < 3 * TenantLedger::kMaxIdleTenants; ++i) {
    const TenantIndex t = ledger.Arrive("t" + std::to_string(i), 1, kStandard);
    ledger.Charge(busy, kStandard, {.input = 2});
    ledger.Leave(t, kStandard);
    ASSERT_LE(ledger.known(), TenantLedger::kMaxIdleTenants + 1);
  }
  EXPECT_EQ(ledger.counter(ledger.Arrive("ahead", 1, kStandard), kStandard), 5'000'000 * kToken)
      << "it would have got rid of what it had";
  EXPECT_EQ(ledger.name(busy), "busy");
}

TEST(TenantLedgerTest, WhoIsAheadIsNotForgottenHoweverManyThereAre) {
  TenantLedger ledger(SchedulerPolicy{});
  ledger.Arrive("floor", 1, kStandard);
  for (size_t i = 0; i < 2 * TenantLedger::kMaxIdleTenants; ++i) {
    const TenantIndex t = ledger.Arrive("t" + std::to_string(i), 1, kStandard);
    ledger.Charge(t, kStandard, {.input = 1});
    ledger.Leave(t, kStandard);
  }
  EXPECT_EQ(ledger.known(), 2 * TenantLedger::kMaxIdleTenants + 1);
  EXPECT_EQ(ledger.counter(ledger.Arrive("t0", 1, kStandard), kStandard), kToken);
}

// I13: counters grow only, hold 2^53 tokens at the greatest price, and only their differences mean
// anything.
TEST(TenantLedgerTest, CountersAreMonotoneAndDoNotOverflow) {
  TenantLedger ledger(SchedulerPolicy{});
  const TenantIndex poor = ledger.Arrive("poor", kMinTenantWeight, kStandard);
  uint64_t before = 0;
  const int64_t part = int64_t{1} << 43;
  for (int i = 0; i < 1024; ++i) {
    ledger.Charge(poor, kStandard, {.output = part});
    ASSERT_GT(ledger.counter(poor, kStandard), before);
    before = ledger.counter(poor, kStandard);
  }
  EXPECT_EQ(before, (uint64_t{1} << 53) * 2 * 100 * kToken);
}

TEST(TenantLedgerTest, OnlyDifferencesMatter) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    std::mt19937 random(seed);
    const uint64_t shift = uint64_t{1} << 60;
    TenantLedger low(SchedulerPolicy{}), high(SchedulerPolicy{}, shift);
    std::vector<int> unfinished(8);
    for (int i = 0; i < 2000; ++i) {
      const auto who = static_cast<uint32_t>(random() % 8);
      const std::string name = std::to_string(who);
      const uint32_t what = random() % 3;
      if (what == 0 || unfinished[who] == 0) {
        ++unfinished[who];
        ASSERT_EQ(low.Arrive(name, who + 1, kStandard), high.Arrive(name, who + 1, kStandard));
        continue;
      }
      const TenantIndex t = low.Arrive(name, who + 1, kStandard);
      high.Arrive(name, who + 1, kStandard);
      if (what == 1) {
        const TenantLedger::Tokens tokens{.input = static_cast<int64_t>(random() % 500)};
        low.Charge(t, kStandard, tokens);
        high.Charge(t, kStandard, tokens);
      } else {
        --unfinished[who];
        low.Leave(t, kStandard);
        high.Leave(t, kStandard);
      }
      low.Leave(t, kStandard);
      high.Leave(t, kStandard);
      ASSERT_EQ(low.counter(t, kStandard) + shift, high.counter(t, kStandard));
    }
  }
}

// I10: a tenant that comes and goes has no more than one that is there all the time.
TEST(TenantLedgerTest, IdlingEarnsNothing) {
  TenantLedger ledger(SchedulerPolicy{});
  const TenantIndex steady = ledger.Arrive("steady", 1, kStandard);
  int64_t served[2] = {0, 0};
  for (int round = 0; round < 100; ++round) {
    const TenantIndex other = ledger.Arrive("comes and goes", 1, kStandard);
    for (int i = 0; i < 20; ++i) {
      const bool first = ledger.counter(steady, kStandard) <= ledger.counter(other, kStandard);
      ledger.Charge(first ? steady : other, kStandard, {.input = 10});
      served[first ? 0 : 1] += 10;
    }
    ledger.Leave(other, kStandard);
    for (int i = 0; i < 20; ++i) ledger.Charge(steady, kStandard, {.input = 10});
  }
  EXPECT_LE(served[1] - served[0], 10) << "it was given what it had missed";
}

TEST(TenantLedgerTest, SharesAreOfThoseWhoAreActive) {
  TenantLedger ledger(SchedulerPolicy{});
  const TenantIndex a = ledger.Arrive("a", 1, kStandard);
  EXPECT_EQ(ledger.share(a), 1);
  const TenantIndex b = ledger.Arrive("b", 3, kStandard);
  EXPECT_EQ(ledger.share(a), 0.25);
  ledger.Arrive("a", 1, Priority::kBatch);
  EXPECT_EQ(ledger.share(a), 0.25) << "in two classes it is one tenant";
  ledger.Arrive("a", 9, kStandard);
  EXPECT_EQ(ledger.share(a), 0.75) << "the last weight that was said counts";
  ledger.Leave(b, kStandard);
  EXPECT_EQ(ledger.share(a), 1);
}

}  // namespace
}  // namespace lorad
