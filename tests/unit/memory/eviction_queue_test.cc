#include "memory/eviction_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <vector>

namespace lorad {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class FakeOwner : public EvictionQueue::Owner {
 public:
  FakeOwner(PagePool* pool, EvictionQueue* queue) : pool_(pool), queue_(queue) {}
  ~FakeOwner() override {
    for (Thing& thing : things_) {
      if (thing.queued) queue_->Take(&thing);
    }
  }

  // Not in the queue.
  EvictionQueue::Item* Add(int name, uint32_t pages, double seconds) {
    Thing& thing = things_.emplace_back();
    thing.owner = this;
    thing.pages = pages;
    thing.seconds = seconds;
    thing.name = name;
    thing.list = PageList(pool_, PageUse::kKv);
    EXPECT_TRUE(thing.list.Grow(pages));
    return &thing;
  }
  // In the queue, used once.
  EvictionQueue::Item* Queued(int name, uint32_t pages, double seconds) {
    EvictionQueue::Item* item = Add(name, pages, seconds);
    queue_->Use(item);
    queue_->Put(item);
    return item;
  }

  void Evict(EvictionQueue::Item* item) override {
    auto* thing = static_cast<Thing*>(item);
    EXPECT_FALSE(thing->queued);
    evicted.push_back(thing->name);
    thing->list.Clear();
    if (thing->parent != nullptr) queue_->Put(thing->parent);
  }
  static void SetParent(EvictionQueue::Item* item, EvictionQueue::Item* parent) {
    static_cast<Thing*>(item)->parent = parent;
  }

  std::vector<int> evicted;

 private:
  struct Thing : EvictionQueue::Item {
    int name = 0;
    PageList list;
    EvictionQueue::Item* parent = nullptr;
  };
  PagePool* const pool_;
  EvictionQueue* const queue_;
  std::deque<Thing> things_;
};

class EvictionQueueTest : public testing::Test {
 protected:
  void TearDown() override { EXPECT_EQ(queue_.Validate(), absl::OkStatus()); }

  PagePool pool_{20, 1};
  EvictionQueue queue_{&pool_};
  FakeOwner things_{&pool_, &queue_};
};

TEST_F(EvictionQueueTest, WhatSavesLeastSecondsAPageGoesFirst) {
  things_.Queued(1, 4, 8);  // 2 a page
  things_.Queued(2, 1, 3);
  things_.Queued(3, 8, 8);  // 1 a page
  EXPECT_TRUE(queue_.MakeRoom(20));
  EXPECT_THAT(things_.evicted, ElementsAre(3, 1, 2));
  EXPECT_EQ(queue_.size(), 0u);
}

TEST_F(EvictionQueueTest, UsesCountAndSoDoPartsOfThem) {
  EvictionQueue::Item* one = things_.Queued(1, 1, 1);
  EvictionQueue::Item* two = things_.Queued(2, 1, 1);
  EvictionQueue::Item* three = things_.Queued(3, 1, 1);
  queue_.Use(one);
  queue_.Use(two, 0.5);
  queue_.Use(three, 0.75);
  EXPECT_THAT(one->score, DoubleEq(1));  // log2
  EXPECT_THAT(two->score, DoubleEq(std::log2(1.5)));
  EXPECT_TRUE(queue_.MakeRoom(20));
  EXPECT_THAT(things_.evicted, ElementsAre(2, 3, 1));
}

TEST_F(EvictionQueueTest, WithoutCostsItIsLeastRecentlyUsed) {
  EvictionQueue::Item* one = things_.Queued(1, 1, 0);
  things_.Queued(2, 3, 0);
  things_.Queued(3, 1, 0);
  queue_.Use(one);
  EXPECT_TRUE(queue_.MakeRoom(20));
  EXPECT_THAT(things_.evicted, ElementsAre(2, 3, 1));
}

TEST_F(EvictionQueueTest, EvictsNoMoreThanNeeded) {
  things_.Queued(1, 2, 1);
  things_.Queued(2, 2, 4);
  EXPECT_TRUE(queue_.MakeRoom(16));
  EXPECT_THAT(things_.evicted, IsEmpty());
  EXPECT_TRUE(queue_.MakeRoom(17));
  EXPECT_THAT(things_.evicted, ElementsAre(1));
  EXPECT_FALSE(queue_.MakeRoom(21));
  EXPECT_THAT(things_.evicted, ElementsAre(1, 2));
}

TEST_F(EvictionQueueTest, WhatIsNotInTheQueueStays) {
  EvictionQueue::Item* held = things_.Queued(1, 1, 1);
  things_.Queued(2, 1, 9);
  queue_.Take(held);
  EXPECT_FALSE(queue_.MakeRoom(20));
  EXPECT_THAT(things_.evicted, ElementsAre(2));
  queue_.Put(held);
  EXPECT_TRUE(queue_.MakeRoom(20));
}

TEST_F(EvictionQueueTest, AUseCountsHalfAfterAQuarterOfThePoolWasEvicted) {
  EvictionQueue::Item* old = things_.Queued(1, 1, 1);
  queue_.Use(old, 3);
  EXPECT_THAT(old->score, DoubleEq(2));
  things_.Queued(2, 5, 0.001);
  EXPECT_TRUE(queue_.MakeRoom(19));
  EXPECT_THAT(queue_.turns(), DoubleEq(0.25));

  const auto used = [&](int name, double uses) {
    EvictionQueue::Item* item = things_.Queued(name, 1, 1);
    queue_.Use(item, uses - 1);
  };
  used(3, 2);
  used(4, 1.875);
  used(5, 2.125);
  EXPECT_TRUE(queue_.MakeRoom(20));
  EXPECT_THAT(things_.evicted, ElementsAre(2, 4, 1, 3, 5));
}

TEST_F(EvictionQueueTest, UsesFadeBeforeNewOnesAreAdded) {
  EvictionQueue::Item* item = things_.Queued(1, 1, 1);
  queue_.Use(item, 3);
  things_.Queued(2, 10, 0.001);
  EXPECT_TRUE(queue_.MakeRoom(19));  // half the pool: 4 uses count as one
  queue_.Use(item);
  EXPECT_THAT(item->score, DoubleEq(std::log2(2) + 2));
}

TEST_F(EvictionQueueTest, LearnsWhatBecomesOfNewcomers) {
  EXPECT_THAT(things_.again(), DoubleEq(0.1));
  EvictionQueue::Item* wanted = things_.Queued(1, 2, 1);
  queue_.Use(wanted, 0.25);
  EXPECT_TRUE(wanted->newcomer);
  EXPECT_THAT(things_.again(), DoubleEq(0.1));
  queue_.Use(wanted, 0.5);
  EXPECT_FALSE(wanted->newcomer);
  EXPECT_THAT(things_.again(), DoubleEq(0.1 + 0.4 * 0.9));  // 2 of the 5 pages of a quarter
  queue_.Use(wanted);
  EXPECT_THAT(things_.again(), DoubleEq(0.46));
  things_.Queued(2, 1, 0.001);
  things_.Queued(3, 1, 100);
  EXPECT_TRUE(queue_.MakeRoom(17));
  EXPECT_THAT(things_.evicted, ElementsAre(2));
  EXPECT_THAT(things_.again(), DoubleEq(0.46 * 0.8));
  EXPECT_TRUE(queue_.MakeRoom(19));
  EXPECT_THAT(things_.evicted, ElementsAre(2, 1));
  EXPECT_THAT(things_.again(), DoubleEq(0.46 * 0.8));  // it was none any more
  things_.Queued(4, 9, 1000);
  EXPECT_TRUE(queue_.MakeRoom(20));
  EXPECT_THAT(things_.again(), DoubleEq(0));
}

TEST_F(EvictionQueueTest, AScanDoesNotDriveOutWhatIsUsed) {
  FakeOwner scans(&pool_, &queue_);
  EvictionQueue::Item* cheap = things_.Queued(0, 2, 2);
  queue_.Use(cheap);
  for (int name = 1; name <= 200; ++name) {
    ASSERT_TRUE(queue_.MakeRoom(1));
    scans.Queued(name, 1, 30);
    if (name % 10 == 0) queue_.Use(cheap);
  }
  EXPECT_LT(scans.again(), 0.001);
  EXPECT_THAT(things_.evicted, IsEmpty());
}

TEST_F(EvictionQueueTest, ANewcomerThatIsAwaitedCountsInFull) {
  EvictionQueue::Item* awaited = things_.Add(1, 1, 1);
  awaited->awaited = true;
  queue_.Use(awaited);
  queue_.Put(awaited);
  things_.Queued(2, 1, 8);
  EXPECT_THAT(awaited->score, DoubleEq(0));
  EXPECT_TRUE(queue_.MakeRoom(19));
  EXPECT_THAT(things_.evicted, ElementsAre(2));
  awaited->awaited = false;
  queue_.Touch(awaited);
  EXPECT_LT(awaited->score, -3);
}

TEST_F(EvictionQueueTest, TouchScoresAnewWithoutAUse) {
  EvictionQueue::Item* one = things_.Queued(1, 1, 1);
  things_.Queued(2, 1, 1);
  queue_.Touch(one);
  EXPECT_THAT(one->uses, DoubleEq(1));
  EXPECT_TRUE(queue_.MakeRoom(19));
  EXPECT_THAT(things_.evicted, ElementsAre(2));
  const double score = one->score;
  queue_.Use(one);
  queue_.Touch(one);
  EXPECT_GT(one->score, score);
  EXPECT_LT(one->uses, 2);
}

TEST_F(EvictionQueueTest, PutKeepsTheScore) {
  EvictionQueue::Item* parent = things_.Add(1, 1, 1);
  queue_.Use(parent);
  const double score = parent->score;
  EvictionQueue::Item* child = things_.Queued(2, 1, 1.5);
  FakeOwner::SetParent(child, parent);
  things_.Queued(3, 1, 1.75);
  EXPECT_TRUE(queue_.MakeRoom(20));
  EXPECT_THAT(things_.evicted, ElementsAre(2, 1, 3));  // the parent comes in with its 1
  EXPECT_THAT(parent->score, DoubleEq(score));
}

using EvictionQueueDeathTest = EvictionQueueTest;

TEST_F(EvictionQueueDeathTest, BrokenRequirementsAbort) {
  EvictionQueue::Item* in = things_.Queued(1, 1, 1);
  EvictionQueue::Item* out = things_.Add(2, 1, 1);
  EXPECT_DEATH(queue_.Put(in), "invariant broken");
  EXPECT_DEATH(queue_.Take(out), "invariant broken");
  EXPECT_DEATH(
      {
        EvictionQueue short_lived(&pool_);
        short_lived.Put(out);
      },
      "invariant broken");
}

}  // namespace
}  // namespace lorad
