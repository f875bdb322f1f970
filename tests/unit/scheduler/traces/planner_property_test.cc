// Random traces: whatever comes, every plan keeps what the planner promises (plan_check.h), and a
// trace depends on nothing but its seed.
//
// LORAD_SEEDS: how many; LORAD_SEED: the first, to see one again.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <string>

#include "tests/unit/scheduler/traces/random_trace.h"

namespace lorad {
namespace {

constexpr int kSteps = 400;

uint64_t NumberFrom(const char* variable, uint64_t otherwise) {
  const char* given = std::getenv(variable);
  return given == nullptr ? otherwise : std::strtoull(given, nullptr, 10);
}

template <typename Check>
void ForEachSeed(uint64_t seeds, const Check& check) {
  const uint64_t first = NumberFrom("LORAD_SEED", 1);
  const uint64_t last = first + NumberFrom("LORAD_SEEDS", seeds);
  for (uint64_t seed = first; seed < last; ++seed) {
    SCOPED_TRACE(testing::Message() << "again: LORAD_SEED=" << seed << " LORAD_SEEDS=1");
    check(seed);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(PlannerProperty, EveryPlanKeepsItsPromises) {
  PlanTrace::Totals all;
  ForEachSeed(120, [&all](uint64_t seed) {
    RandomTrace random(seed);
    const absl::Status status = random.Run(kSteps);
    ASSERT_TRUE(status.ok()) << status;
    const PlanTrace::Totals& t = random.trace().totals();
    all.admitted += t.admitted, all.preempted += t.preempted, all.loads += t.loads;
    all.refused += t.refused, all.overtakes += t.overtakes, all.reserved += t.reserved;
    all.pinned += t.pinned, all.drained += t.drained, all.cached_tokens += t.cached_tokens;
    all.evictions += t.evictions, all.gave_way += t.gave_way, all.in_vain += t.in_vain;
  });
  std::cout << fmt::format(
      "{} admitted, {} preempted, {} gave way, {} in vain, {} refused, {} overtaken, {} reserved, "
      "{} pinned, "
      "{} drained, {} "
      "loads, {} evictions, {} tokens cached\n",
      all.admitted, all.preempted, all.gave_way, all.in_vain, all.refused, all.overtakes,
      all.reserved, all.pinned, all.drained, all.loads, all.evictions, all.cached_tokens);
  if (std::getenv("LORAD_SEED") != nullptr) return;
  // What matters did happen.
  EXPECT_GT(all.admitted, 5'000);
  EXPECT_GT(all.preempted, 200);
  EXPECT_GT(all.gave_way, 200);
  EXPECT_LT(all.in_vain, all.gave_way / 20) << "whom they gave way to is admitted";
  EXPECT_GT(all.loads, 2'000);
  EXPECT_GT(all.evictions, 1'000);
  EXPECT_GT(all.refused, 5);
  EXPECT_GT(all.overtakes, 3'000);
  EXPECT_GT(all.reserved, 5'000);
  EXPECT_GT(all.pinned, 5'000);
  EXPECT_GT(all.drained, 500);
  EXPECT_GT(all.cached_tokens, 2'000);
}

// I11, I13.
TEST(PlannerProperty, PlansDependOnTheSeedAndNotOnWhereCountersBegin) {
  ForEachSeed(15, [](uint64_t seed) {
    uint64_t first = 0;
    for (const uint64_t floor : {uint64_t{0}, uint64_t{0}, uint64_t{1}, uint64_t{1} << 56}) {
      RandomTrace random(seed, floor);
      const absl::Status status = random.Run(kSteps);
      ASSERT_TRUE(status.ok()) << status;
      if (first == 0) first = random.trace().hash();
      ASSERT_EQ(random.trace().hash(), first) << "counters that begin at " << floor;
    }
  });
}

}  // namespace
}  // namespace lorad
