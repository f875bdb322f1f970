#include "tests/simulation/routing.h"

#include <gtest/gtest.h>

#include <vector>

namespace lorad::sim {
namespace {

TEST(RoutingTest, AnAdapterStaysWhereItIs) {
  const std::vector<int> loads = {10, 10, 10, 10};
  std::vector<int> adapters(4, 0);
  for (uint64_t adapter = 1; adapter <= 1000; ++adapter) {
    const int server = Route(Routing::kAffine, adapter, loads);
    EXPECT_EQ(server, Route(Routing::kAffine, adapter, loads));
    ++adapters[static_cast<size_t>(server)];
  }
  for (const int n : adapters) EXPECT_NEAR(n, 250, 50);
}

TEST(RoutingTest, OneServerMoreMovesOnlyItsShare) {
  const std::vector<int> four(4, 10), five(5, 10);
  int moved = 0;
  for (uint64_t adapter = 1; adapter <= 1000; ++adapter) {
    const int before = Route(Routing::kAffine, adapter, four);
    const int after = Route(Routing::kAffine, adapter, five);
    if (before == after) continue;
    ++moved;
    EXPECT_EQ(after, 4) << "to the new one only";
  }
  EXPECT_NEAR(moved, 200, 50);
}

TEST(RoutingTest, NobodyDrowns) {
  std::vector<int> loads(4, 0);
  for (int i = 0; i < 1000; ++i) ++loads[static_cast<size_t>(Route(Routing::kAffine, 7, loads))];
  for (const int load : loads) EXPECT_LE(load, 1.25 * 250 + 1);
  loads.assign(4, 0);
  for (int i = 0; i < 1000; ++i) ++loads[static_cast<size_t>(Route(Routing::kHashed, 7, loads))];
  EXPECT_EQ(*std::max_element(loads.begin(), loads.end()), 1000) << "without the bound";
}

TEST(RoutingTest, BaseModelIsEverywhere) {
  EXPECT_EQ(Route(Routing::kAffine, 0, std::vector<int>{5, 2, 9}), 1);
  EXPECT_EQ(Route(Routing::kLeastLoaded, 3, std::vector<int>{5, 2, 9}), 1);
}

}  // namespace
}  // namespace lorad::sim
