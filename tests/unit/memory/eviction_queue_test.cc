#include "memory/eviction_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
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
  things_.Queued(2, 1, 1);
  EvictionQueue::Item* three = things_.Queued(3, 1, 1);
  queue_.Use(one);
  queue_.Use(three, 0.5);
  EXPECT_THAT(one->score, DoubleEq(2));
  EXPECT_THAT(three->score, DoubleEq(1.5));
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

TEST_F(EvictionQueueTest, AgeLetsWhatWasPopularOnceGoInTheEnd) {
  EvictionQueue::Item* old = things_.Queued(1, 1, 1);
  for (int i = 0; i < 4; ++i) queue_.Use(old);  // score 5
  for (int name = 2; name < 10; ++name) {
    things_.Queued(name, 1, 1);
    ASSERT_TRUE(queue_.MakeRoom(19));
  }
  // Each newcomer starts one above the last to go: the fifth is worth what the old one is, and the
  // old one was scored before.
  EXPECT_THAT(things_.evicted, ElementsAre(2, 3, 4, 5, 1, 6, 7, 8));
  EXPECT_THAT(queue_.age(), DoubleEq(6));
}

TEST_F(EvictionQueueTest, TouchScoresAnewWithoutAUse) {
  EvictionQueue::Item* one = things_.Queued(1, 1, 1);
  things_.Queued(2, 1, 1);
  queue_.Touch(one);
  EXPECT_THAT(one->uses, DoubleEq(1));
  EXPECT_TRUE(queue_.MakeRoom(19));
  EXPECT_THAT(things_.evicted, ElementsAre(2));
  queue_.Touch(one);
  EXPECT_THAT(one->score, DoubleEq(2));
}

TEST_F(EvictionQueueTest, PutKeepsTheScore) {
  EvictionQueue::Item* parent = things_.Add(1, 1, 1);
  queue_.Use(parent);
  EvictionQueue::Item* child = things_.Queued(2, 1, 1.5);
  FakeOwner::SetParent(child, parent);
  things_.Queued(3, 1, 1.75);
  EXPECT_TRUE(queue_.MakeRoom(20));
  // The parent comes in with its 1, below what went before it; age does not fall.
  EXPECT_THAT(things_.evicted, ElementsAre(2, 1, 3));
  EXPECT_THAT(parent->score, DoubleEq(1));
  EXPECT_THAT(queue_.age(), DoubleEq(1.75));
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
