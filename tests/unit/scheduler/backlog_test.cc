#include "scheduler/backlog.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace lorad {
namespace {

using Place = Backlog::Place;

Place Come(Backlog* backlog, const std::string& tenant, int tokens,
           Priority priority = Priority::kStandard, double weight = 1) {
  const Place place = backlog->Next(tenant, weight, priority, tokens);
  backlog->Add(place);
  return place;
}

TEST(BacklogTest, WhoeverCameBeforeOfTheSameTenant) {
  Backlog backlog;
  const Place first = Come(&backlog, "a", 10);
  const Place second = Come(&backlog, "a", 20);
  const Place third = Come(&backlog, "a", 30);
  EXPECT_EQ(backlog.Ahead(first), (Queued{0, 0}));
  EXPECT_EQ(backlog.Ahead(second), (Queued{1, 10}));
  EXPECT_EQ(backlog.Ahead(third), (Queued{2, 30}));
  EXPECT_EQ(backlog.Ahead(backlog.Next("a", 1, Priority::kStandard, 5)), (Queued{3, 60}));
  backlog.Remove(first);
  EXPECT_EQ(backlog.Ahead(third), (Queued{1, 20}));
  backlog.Remove(second);
  EXPECT_EQ(backlog.Ahead(third), (Queued{0, 0}));
  EXPECT_EQ(backlog.total(), (Queued{1, 30}));
  backlog.Remove(third);
  EXPECT_EQ(backlog.total(), (Queued{0, 0}));
}

TEST(BacklogTest, WhoLeavesFromBehindMakesNobodyWaitLessThanNothing) {
  Backlog backlog;
  const Place first = Come(&backlog, "a", 10);
  const Place second = Come(&backlog, "a", 20);
  backlog.Remove(second);
  EXPECT_EQ(backlog.Ahead(first), (Queued{0, 0}));
}

TEST(BacklogTest, MoreUrgentClassesGoFirstWheneverTheyCome) {
  Backlog backlog;
  const Place batch = Come(&backlog, "a", 10, Priority::kBatch);
  const Place standard = Come(&backlog, "b", 20, Priority::kStandard);
  const Place urgent = Come(&backlog, "c", 40, Priority::kInteractive);
  EXPECT_EQ(backlog.Ahead(batch), (Queued{2, 60}));
  EXPECT_EQ(backlog.Ahead(standard), (Queued{1, 40}));
  EXPECT_EQ(backlog.Ahead(urgent), (Queued{0, 0}));
}

TEST(BacklogTest, AFloodingTenantIsNotAheadOfOthers) {
  Backlog backlog;
  for (int i = 0; i < 100; ++i) Come(&backlog, "flood", 1000);
  EXPECT_EQ(backlog.Ahead(backlog.Next("light", 1, Priority::kStandard, 5)), (Queued{0, 0}));
  Come(&backlog, "light", 50);
  // Two tenants of equal weight: for one token of its own, one of the other's.
  EXPECT_EQ(backlog.Ahead(backlog.Next("light", 1, Priority::kStandard, 5)), (Queued{2, 100}));
  EXPECT_EQ(backlog.Ahead(backlog.Next("flood", 1, Priority::kStandard, 5)), (Queued{101, 100050}))
      << "no more than there is";
}

TEST(BacklogTest, WeightsAreShares) {
  Backlog backlog;
  for (int i = 0; i < 10; ++i) Come(&backlog, "flood", 1000);
  Come(&backlog, "heavy", 60, Priority::kStandard, 3);
  // Of 4 shares heavy has 3.
  EXPECT_EQ(backlog.Ahead(backlog.Next("heavy", 3, Priority::kStandard, 5)), (Queued{4.0 / 3, 80}));
}

TEST(BacklogTest, WhoHasNothingLeftHasNoShareAndIsForgotten) {
  Backlog backlog;
  for (int i = 0; i < 10; ++i) Come(&backlog, "flood", 1000);
  const Place other = Come(&backlog, "other", 500);
  const Place once = Come(&backlog, "once", 500);
  Come(&backlog, "light", 50);
  const auto ahead = [&backlog] {
    return backlog.Ahead(backlog.Next("light", 1, Priority::kStandard, 5)).tokens;
  };
  EXPECT_EQ(ahead(), 4 * 50);
  EXPECT_EQ(backlog.tenants(), 4u);
  backlog.Remove(once);
  EXPECT_EQ(ahead(), 3 * 50);
  backlog.Remove(other);
  EXPECT_EQ(ahead(), 2 * 50);
  EXPECT_EQ(backlog.tenants(), 2u);
}

TEST(BacklogTest, WhatATenantHasIsCountedOverAllClasses) {
  Backlog backlog;
  const Place a = Come(&backlog, "a", 10, Priority::kBatch);
  Come(&backlog, "a", 10, Priority::kInteractive);
  Come(&backlog, "b", 10);
  EXPECT_EQ(backlog.Of("a").requests, 2);
  EXPECT_EQ(backlog.Of("b").requests, 1);
  EXPECT_EQ(backlog.Of("c").requests, 0);
  backlog.Remove(a);
  EXPECT_EQ(backlog.Of("a").requests, 1);
}

// Against a list: nobody is told of more than goes before it, of the first comers, exactly that.
TEST(BacklogTest, IsABoundFromBelowInAnyOrder) {
  std::mt19937 random(7);
  const auto pick = [&random](size_t n) { return random() % n; };
  Backlog backlog;
  std::vector<Place> waiting;  // by arrival
  const std::vector<std::string> tenants = {"a", "b", "c", ""};
  for (int step = 0; step < 20000; ++step) {
    if (waiting.size() < 2 || (pick(100) < 52 && waiting.size() < 200)) {
      waiting.push_back(Come(&backlog, tenants[pick(tenants.size())],
                             1 + static_cast<int>(pick(500)),
                             static_cast<Priority>(pick(kPriorities))));
    } else {
      const auto at = waiting.begin() + static_cast<std::ptrdiff_t>(pick(waiting.size()));
      backlog.Remove(*at);
      waiting.erase(at);
    }
    double tokens = 0;
    for (const Place& place : waiting) tokens += place.own.tokens;
    ASSERT_EQ(backlog.total(), (Queued{static_cast<double>(waiting.size()), tokens}));
    const size_t probe = pick(waiting.size());
    const Place& me = waiting[probe];
    double before = 0;
    for (size_t i = 0; i < waiting.size(); ++i) {
      const bool urgent = waiting[i].priority < me.priority;
      const bool earlier = waiting[i].priority == me.priority && i < probe;
      if (urgent || earlier) before += waiting[i].own.tokens;
    }
    ASSERT_LE(backlog.Ahead(me).tokens, before) << "step " << step;
  }
}

}  // namespace
}  // namespace lorad
