// The forecast held against playing every step.
#include "scheduler/memory_forecast.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "scheduler/safe_state.h"

namespace lorad {
namespace {

using Demand = MemoryForecast::Demand;

int64_t PagesOf(int64_t tokens, int page) { return (tokens + page - 1) / page; }

// Pages that are taken beyond those of now in step `t`, counted one by one.
int64_t TakenAt(const std::vector<Demand>& all, int64_t t, int page) {
  int64_t taken = 0;
  for (const Demand& d : all) {
    const int64_t last = std::max(0, d.tokens + d.left - 1);
    if (d.stalled) {
      taken += std::max<int64_t>(0, PagesOf(last, page) - d.held);
    } else if (t <= d.left) {
      taken += PagesOf(d.tokens + t - 1, page) - d.held;
    } else {
      taken -= d.returns;
    }
  }
  return taken;
}

int64_t Played(const std::vector<Demand>& all, int page) {
  int64_t longest = 0, most = 0;
  for (const Demand& d : all) longest = std::max<int64_t>(longest, d.left);
  for (const Demand& d : all) most += d.stalled ? TakenAt({d}, 0, page) : 0;
  for (int64_t t = 1; t <= longest; ++t) most = std::max(most, TakenAt(all, t, page));
  return most;
}

Demand Draw(std::mt19937* random, int page, bool may_stall) {
  const auto pick = [random](int n) { return static_cast<int>((*random)() % unsigned(n)); };
  Demand d{.tokens = 1 + pick(60), .left = pick(4) == 0 ? 0 : pick(50)};
  d.held = static_cast<uint32_t>(PagesOf(d.tokens, page));
  d.returns = static_cast<uint32_t>(pick(static_cast<int>(d.held) + 1));
  d.stalled = may_stall && pick(8) == 0;
  return d;
}

TEST(MemoryForecastTest, IsWhatPlayingEveryStepGives) {
  for (uint32_t seed = 1; seed <= 3000; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const int page = 1 + static_cast<int>(random() % 17);
    MemoryForecast forecast(page);
    std::vector<Demand> all;
    for (uint32_t n = random() % 12; n > 0; --n) {
      all.push_back(Draw(&random, page, true));
      forecast.Add(all.back());
    }
    const int64_t needed = Played(all, page);
    ASSERT_EQ(forecast.Needed(), needed);
    const Demand more = Draw(&random, page, false);
    all.push_back(more);
    const int64_t with = Played(all, page);
    EXPECT_TRUE(forecast.Fits(more, with));
    EXPECT_FALSE(forecast.Fits(more, with - 1));
  }
}

TEST(MemoryForecastTest, RoomIsThereWhenItIsSaidToBe) {
  int found = 0;
  for (uint32_t seed = 1; seed <= 3000; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const int page = 1 + static_cast<int>(random() % 17);
    MemoryForecast forecast(page);
    std::vector<Demand> all;
    int64_t longest = 0;
    for (uint32_t n = 1 + random() % 8; n > 0; --n) {
      all.push_back(Draw(&random, page, true));
      forecast.Add(all.back());
      longest = std::max<int64_t>(longest, all.back().left);
    }
    const int64_t available = Played(all, page) + static_cast<int64_t>(random() % 5);
    const int64_t wanted = 1 + static_cast<int64_t>(random() % 20);
    const MemoryForecast::Opening opening = forecast.WhenFree(wanted, available);
    // The least that is free from a step on.
    const auto free_from = [&](int64_t step) {
      int64_t least = std::numeric_limits<int64_t>::max();
      for (int64_t t = step; t <= longest + 1; ++t) {
        least = std::min(least, available - TakenAt(all, t, page));
      }
      return least;
    };
    if (opening.steps == std::numeric_limits<int64_t>::max()) {
      EXPECT_LT(free_from(longest + 1), wanted);
      continue;
    }
    ++found;
    EXPECT_GE(free_from(opening.steps + 1), wanted);
    EXPECT_LE(opening.spare, free_from(opening.steps + 1) - wanted + 1);
  }
  EXPECT_GT(found, 1000);
}

// Whether some order lets all end, by trying all orders.
bool SafeByTrying(std::vector<std::pair<int64_t, int64_t>> claims, int64_t available) {
  if (claims.empty()) return true;
  for (size_t i = 0; i < claims.size(); ++i) {
    if (claims[i].first > available) continue;
    auto rest = claims;
    rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(i));
    if (SafeByTrying(rest, available + claims[i].second)) return true;
  }
  return false;
}

TEST(SafeStateTest, IsWhatTryingAllOrdersGives) {
  int safe = 0;
  for (uint32_t seed = 1; seed <= 2000; ++seed) {
    std::mt19937 random(seed);
    SafeState state;
    std::vector<std::pair<int64_t, int64_t>> claims;
    for (uint32_t n = 1 + random() % 6; n > 0; --n) {
      claims.emplace_back(random() % 10, random() % 5);
      state.Add(claims.back().first, claims.back().second);
    }
    const auto available = static_cast<int64_t>(random() % 10);
    const bool expected = SafeByTrying(claims, available);
    safe += expected ? 1 : 0;
    ASSERT_EQ(state.IsSafe(available), expected) << seed;
    const size_t who = random() % claims.size();
    const int64_t pages = std::min<int64_t>(1, claims[who].first);
    claims[who].first -= pages;
    claims[who].second += pages;
    ASSERT_EQ(state.IsSafeAfterGiving(who, pages, available),
              pages <= available && SafeByTrying(claims, available - pages))
        << seed;
  }
  EXPECT_GT(safe, 300);
  EXPECT_LT(safe, 1700);
}

}  // namespace
}  // namespace lorad
