#include "scheduler/waiting_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "scheduler/policy_order.h"

namespace lorad {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Books {
  explicit Books(const SchedulerPolicy& policy_in = {})
      : policy(policy_in), ledger(policy), queue(&policy, &ledger) {}

  struct Request {
    RequestId id;
    std::string tenant = {};
    Priority priority = Priority::kStandard;
    AdapterVersionId adapter = 0;
    AdapterState state = AdapterState::kNone;
  };
  TenantIndex Add(const Request& r) {
    const TenantIndex tenant = ledger.Arrive(r.tenant, 1, ClassOf(r.priority, policy));
    queue.Add({.id = r.id, .tenant = tenant, .priority = r.priority, .adapter = r.adapter}, r.state,
              now);
    return tenant;
  }
  void Charge(TenantIndex tenant, int64_t tokens, Priority priority = Priority::kStandard) {
    ledger.Charge(tenant, priority, {.input = tokens});
    queue.Reprice(tenant, priority);
  }
  // Those who could run, in order; each is charged `tokens` when its turn has come.
  std::vector<RequestId> Order(int64_t tokens = 0) {
    const PlannerView view{.now = now, .waiting = &queue, .tenants = &ledger};
    PolicyOrder order(view, policy, {}, true);
    std::vector<RequestId> ids;
    for (PolicyOrder::Candidate c; order.Next(&c);) {
      if (c.cold()) {
        cold.push_back(c.waiting->id);
      } else {
        ids.push_back(c.waiting->id);
        order.Charge(c.waiting->tenant, c.waiting->priority, {.input = tokens});
      }
    }
    return ids;
  }

  SchedulerPolicy policy;
  TenantLedger ledger;
  WaitingQueue queue;
  TimePoint now{};
  std::vector<RequestId> cold;
};

TEST(WaitingQueueTest, OneTenantIsServedInOrderOfArrival) {
  Books b;
  for (RequestId id : {5, 2, 9, 1})
    b.Add({.id = id,
           .adapter = id % 2,
           .state = id % 2 ? AdapterState::kResident : AdapterState::kNone});
  EXPECT_THAT(b.Order(10), ElementsAre(1, 2, 5, 9));
  b.queue.Remove(2);
  EXPECT_THAT(b.Order(10), ElementsAre(1, 5, 9));
}

TEST(WaitingQueueTest, TheTenantThatHadLeastGoesFirst) {
  Books b;
  const TenantIndex a = b.Add({.id = 1, .tenant = "a"});
  b.Add({.id = 2, .tenant = "b"});
  b.Charge(a, 50);
  EXPECT_THAT(b.Order(), ElementsAre(2, 1));
}

TEST(WaitingQueueTest, TenantsTakeTurnsWithinOnePlan) {
  Books b;
  for (RequestId id : {1, 2, 3}) b.Add({.id = id, .tenant = "flood"});
  for (RequestId id : {4, 5}) b.Add({.id = id, .tenant = "other"});
  EXPECT_THAT(b.Order(10), ElementsAre(1, 4, 2, 5, 3));
}

TEST(WaitingQueueTest, WithoutFairnessOnlyArrivalCounts) {
  Books b(PlainFcfs({}));
  b.Add({.id = 3, .tenant = "b", .priority = Priority::kInteractive});
  const TenantIndex a = b.Add({.id = 1, .tenant = "a", .priority = Priority::kBatch});
  b.Add({.id = 2, .tenant = "a"});
  b.Charge(a, 50);
  EXPECT_THAT(b.Order(10), ElementsAre(1, 2, 3));
}

TEST(WaitingQueueTest, ClassesGoOneAfterTheOther) {
  Books b;
  const TenantIndex a = b.Add({.id = 1, .tenant = "a", .priority = Priority::kBatch});
  b.Add({.id = 2, .tenant = "a", .priority = Priority::kStandard});
  b.Add({.id = 3, .tenant = "a", .priority = Priority::kInteractive});
  b.Charge(a, 1000, Priority::kInteractive);
  EXPECT_THAT(b.Order(10), ElementsAre(3, 2, 1));
}

TEST(WaitingQueueTest, OnlyTheFirstOfAClassThatIsPassedOverAges) {
  Books b;
  b.Add({.id = 1, .priority = Priority::kBatch});
  b.Add({.id = 2, .priority = Priority::kBatch});
  for (RequestId id : {3, 4}) b.Add({.id = id, .tenant = "t", .priority = Priority::kInteractive});
  b.Add({.id = 5, .priority = Priority::kStandard});
  b.now += b.policy.ageing;
  b.queue.Remove(5);  // an end is no admission, and there is another in the class
  b.Add({.id = 6, .priority = Priority::kStandard});
  EXPECT_THAT(b.Order(), ElementsAre(3, 4, 1, 6, 2));
  b.now += b.policy.ageing;
  EXPECT_THAT(b.Order(), ElementsAre(1, 3, 4, 6, 2));
  b.queue.Admit(1, b.now);
  EXPECT_THAT(b.Order(), ElementsAre(3, 4, 6, 2)) << "the class has been served";
  b.policy.ageing = Duration::zero();
  b.now += std::chrono::hours(1);
  EXPECT_THAT(b.Order(), ElementsAre(3, 4, 6, 2));
}

TEST(WaitingQueueTest, AdaptersThatComeAndGoMoveTheirLanes) {
  Books b;
  b.Add({.id = 1, .adapter = 7, .state = AdapterState::kStored});
  b.Add({.id = 2});
  b.Add({.id = 3, .adapter = 7, .state = AdapterState::kStored});
  b.Add({.id = 4, .tenant = "other", .adapter = 7, .state = AdapterState::kStored});
  EXPECT_THAT(b.Order(), ElementsAre(2));
  EXPECT_THAT(b.cold, ElementsAre(1, 4)) << "the first of each lane";
  EXPECT_THAT(b.queue.WaitingFor(7), testing::UnorderedElementsAre(1, 3, 4));
  b.queue.SetAdapterState(7, AdapterState::kLoading);
  EXPECT_THAT(b.Order(), ElementsAre(2));
  b.queue.SetAdapterState(7, AdapterState::kResident);
  EXPECT_THAT(b.Order(), ElementsAre(1, 2, 3, 4));
  b.queue.SetAdapterState(7, AdapterState::kStored);
  EXPECT_THAT(b.Order(), ElementsAre(2));
  b.queue.SetAdapterState(8, AdapterState::kResident);  // nobody waits for it
  for (RequestId id : {1, 3, 4}) b.queue.Remove(id);
  EXPECT_THAT(b.queue.WaitingFor(7), IsEmpty());
}

// A tenant's share does not grow with its adapters (I10).
TEST(WaitingQueueTest, AHundredAdaptersAreOneShare) {
  Books b;
  RequestId id = 1;
  for (AdapterVersionId adapter = 1; adapter <= 100; ++adapter) {
    b.Add({.id = id++, .tenant = "many", .adapter = adapter, .state = AdapterState::kResident});
  }
  for (int i = 0; i < 100; ++i) b.Add({.id = id++, .tenant = "one"});
  const std::vector<RequestId> order = b.Order(10);
  EXPECT_EQ(std::count_if(order.begin(), order.begin() + 100, [](RequestId i) { return i <= 100; }),
            50);
}

// The walk is lazy and incremental; here it is held against sorting everything anew.
TEST(WaitingQueueTest, WalkIsTheSortedOrderAfterAnyHistory) {
  struct Entry {
    Books::Request request;
    TenantIndex tenant;
  };
  for (uint32_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const auto pick = [&random](uint32_t n) { return static_cast<uint32_t>(random() % n); };
    Books b;
    std::map<RequestId, Entry> all;
    std::map<AdapterVersionId, AdapterState> states;
    for (AdapterVersionId a = 1; a <= 5; ++a) states[a] = AdapterState::kStored;
    states[0] = AdapterState::kNone;
    for (int i = 0; i < 400; ++i) {
      const RequestId id = 1 + pick(60);
      const auto found = all.find(id);
      if (found == all.end()) {
        Books::Request r{.id = id,
                         .tenant = std::string(1, static_cast<char>('a' + pick(4))),
                         .priority = static_cast<Priority>(pick(3)),
                         .adapter = pick(6)};
        r.state = states[r.adapter];
        all[id] = {r, b.Add(r)};
      } else if (pick(3) == 0) {
        b.queue.Remove(id);
        b.ledger.Leave(found->second.tenant, found->second.request.priority);
        all.erase(found);
      } else if (pick(2) == 0) {
        b.Charge(found->second.tenant, pick(50), found->second.request.priority);
      } else {
        const AdapterVersionId adapter = 1 + pick(5);
        states[adapter] = static_cast<AdapterState>(1 + pick(3));
        b.queue.SetAdapterState(adapter, states[adapter]);
      }
      ASSERT_TRUE(b.queue.Validate().ok()) << b.queue.Validate();
      ASSERT_EQ(b.queue.size(), all.size());
      std::vector<RequestId> expected;
      for (const auto& [request, entry] : all) {
        const AdapterState state = states[entry.request.adapter];
        if (state == AdapterState::kNone || state == AdapterState::kResident) {
          expected.push_back(request);
        }
      }
      const auto key = [&](RequestId request) {
        const Entry& e = all.at(request);
        return std::tuple(e.request.priority, b.ledger.counter(e.tenant, e.request.priority),
                          request);
      };
      std::sort(expected.begin(), expected.end(),
                [&key](RequestId x, RequestId y) { return key(x) < key(y); });
      ASSERT_EQ(b.Order(), expected) << "after change " << i;
    }
  }
}

}  // namespace
}  // namespace lorad
