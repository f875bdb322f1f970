#include "memory/host_tier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <vector>

namespace lorad {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Writes an image and lets go of it.
std::optional<uint32_t> Keep(HostTier* tier, AdapterVersionId id, uint32_t blocks,
                             double seconds = 1) {
  const auto first = tier->BeginWrite(id, blocks);
  if (!first.has_value()) return first;
  tier->FinishWrite(id, seconds);
  tier->Release(id);
  EXPECT_TRUE(tier->Validate().ok()) << tier->Validate();
  return first;
}

void Use(HostTier* tier, AdapterVersionId id, int times) {
  for (int i = 0; i < times; ++i) {
    ASSERT_TRUE(tier->Acquire(id).has_value());
    tier->Release(id);
  }
}

TEST(HostTierTest, FindsWhatWasKept) {
  HostTier tier(10);
  EXPECT_FALSE(tier.Acquire(1).has_value());
  EXPECT_EQ(Keep(&tier, 1, 4), 0u);
  EXPECT_EQ(Keep(&tier, 2, 3), 4u);
  EXPECT_EQ(tier.Acquire(1), 0u);
  EXPECT_EQ(tier.Acquire(2), 4u);
  const HostTier::Stats stats = tier.stats();
  EXPECT_EQ(stats.hits, 2u);
  EXPECT_EQ(stats.misses, 1u);
  EXPECT_EQ(stats.images, 2u);
  EXPECT_EQ(stats.used_blocks, 7u);
  EXPECT_EQ(stats.total_blocks, 10u);
}

TEST(HostTierTest, WhatIsBeingWrittenIsNotFound) {
  HostTier tier(10);
  ASSERT_TRUE(tier.BeginWrite(1, 4).has_value());
  EXPECT_FALSE(tier.Acquire(1).has_value());
  tier.AbortWrite(1);
  EXPECT_FALSE(tier.Contains(1));
  EXPECT_EQ(tier.stats().used_blocks, 0u);
  EXPECT_THAT(tier.TakeLeft(), IsEmpty());
  EXPECT_TRUE(tier.Validate().ok());
}

TEST(HostTierTest, NeitherHeldNorUnfinishedImagesLeave) {
  HostTier tier(10);
  ASSERT_TRUE(tier.BeginWrite(1, 4).has_value());
  ASSERT_TRUE(Keep(&tier, 2, 4).has_value());
  ASSERT_TRUE(tier.Acquire(2).has_value());
  ASSERT_TRUE(tier.Acquire(2).has_value());
  EXPECT_FALSE(tier.BeginWrite(3, 3).has_value());
  tier.Release(2);
  EXPECT_FALSE(tier.BeginWrite(3, 3).has_value()) << "a second hold";
  EXPECT_THAT(tier.TakeLeft(), IsEmpty()) << "nothing is evicted in vain";
  tier.Release(2);
  EXPECT_EQ(tier.BeginWrite(3, 6), 4u);
  EXPECT_THAT(tier.TakeLeft(), ElementsAre(2));
  EXPECT_FALSE(tier.BeginWrite(4, 11).has_value()) << "larger than the arena";
}

TEST(HostTierTest, WhatSavesFewestSecondsLeaves) {
  HostTier tier(12);
  Keep(&tier, 1, 4, 5.0);
  Keep(&tier, 2, 4, 0.5);
  Keep(&tier, 3, 4, 2.0);
  Keep(&tier, 4, 4, 1.0);
  EXPECT_THAT(tier.TakeLeft(), ElementsAre(2));
  Use(&tier, 4, 2);  // 3 uses of a second now
  Keep(&tier, 5, 4, 1.0);
  EXPECT_THAT(tier.TakeLeft(), ElementsAre(3));
}

TEST(HostTierTest, UsesFade) {
  HostTier tier(16);
  Keep(&tier, 1, 4);
  Use(&tier, 1, 7);
  AdapterVersionId next = 2;
  std::vector<AdapterVersionId> left;
  // Eight uses that nobody repeats are worth one after three quarters of the arena.
  while (tier.Contains(1) && next < 50) Keep(&tier, next++, 4);
  EXPECT_GT(next, 2u + 4u);
  EXPECT_LT(next, 2u + 12u);
}

TEST(HostTierTest, OneLargeImageTakesTheCheapestRun) {
  HostTier tier(12);
  for (AdapterVersionId id = 1; id <= 6; ++id) Keep(&tier, id, 2, id == 1 || id == 6 ? 0.1 : 1.0);
  Use(&tier, 2, 3);
  // 1 and 6 are the cheapest but do not lie together: 5 and 6 cost 1.1, 1 and 2 cost 4.1.
  EXPECT_EQ(Keep(&tier, 7, 4), 8u);
  EXPECT_THAT(tier.TakeLeft(), ElementsAre(5, 6));
}

TEST(HostTierTest, FreeBlocksAreUsedBeforeAnythingLeaves) {
  HostTier tier(12);
  for (AdapterVersionId id = 1; id <= 4; ++id) Keep(&tier, id, 3);
  tier.Retire(1);
  tier.Retire(3);
  EXPECT_THAT(tier.TakeLeft(), ElementsAre(1, 3));
  EXPECT_EQ(Keep(&tier, 5, 2), 0u);
  EXPECT_EQ(Keep(&tier, 6, 3), 6u) << "the hole that it fits";
  EXPECT_EQ(Keep(&tier, 7, 1), 2u);
  EXPECT_THAT(tier.TakeLeft(), IsEmpty());
}

// The shortest run begins with an image; the free block before it joins.
TEST(HostTierTest, RunJoinsWithWhatIsFreeBeforeIt) {
  HostTier tier(6);
  Keep(&tier, 1, 2);
  Keep(&tier, 2, 4);
  tier.Retire(1);
  EXPECT_EQ(Keep(&tier, 3, 4), 0u);
  EXPECT_EQ(Keep(&tier, 4, 2), 4u);
}

TEST(HostTierTest, RetiredImageLeavesWithItsLastHold) {
  HostTier tier(10);
  ASSERT_TRUE(tier.BeginWrite(1, 4).has_value());
  tier.Retire(1);
  tier.FinishWrite(1, 1);
  ASSERT_TRUE(tier.Acquire(1).has_value());
  tier.Release(1);
  EXPECT_TRUE(tier.Contains(1));
  tier.Release(1);
  EXPECT_FALSE(tier.Contains(1));
  EXPECT_THAT(tier.TakeLeft(), ElementsAre(1));
  EXPECT_EQ(tier.stats().evictions, 0u);
  tier.Retire(1);  // not here: nothing happens
}

TEST(HostTierTest, TierWithoutBlocksKeepsNothing) {
  HostTier tier(0);
  EXPECT_FALSE(tier.BeginWrite(1, 1).has_value());
  EXPECT_TRUE(tier.Validate().ok());
}

// Random use against a plain model: an array of blocks, each with the image that has it.
class Model {
 public:
  explicit Model(uint32_t blocks) : owner_(blocks, 0) {}

  struct Image {
    uint32_t first, blocks;
    int holds = 0;
    bool writing = true, retired = false;
    double seconds = 0, uses = 1, used_at = 0;
    bool idle() const { return !writing && holds == 0; }
  };
  double Value(const Image& image) const {
    return image.seconds * image.uses * std::exp2((image.used_at - turns) / HostTier::kMemory);
  }
  // The least that any run of so many blocks costs; infinity: there is none.
  double Cheapest(uint32_t blocks) const {
    double best = INFINITY;
    for (uint32_t first = 0; first + blocks <= owner_.size(); ++first) {
      best = std::min(best, Cost(first, blocks));
    }
    return best;
  }
  double Cost(uint32_t first, uint32_t blocks) const {
    std::set<AdapterVersionId> in_the_way(owner_.begin() + first, owner_.begin() + first + blocks);
    double cost = 0;
    for (AdapterVersionId id : in_the_way) {
      if (id == 0) continue;
      if (!images.at(id).idle()) return INFINITY;
      cost += Value(images.at(id));
    }
    return cost;
  }
  void Add(AdapterVersionId id, uint32_t first, uint32_t blocks) {
    for (uint32_t b = first; b < first + blocks; ++b) {
      EXPECT_EQ(owner_[b], 0u) << "block " << b << " is taken";
      owner_[b] = id;
    }
    images[id] = {.first = first, .blocks = blocks, .used_at = turns};
  }
  void Remove(AdapterVersionId id) {
    for (AdapterVersionId& owner : owner_) {
      if (owner == id) owner = 0;
    }
    images.erase(id);
  }
  uint32_t used() const {
    return static_cast<uint32_t>(owner_.size() -
                                 static_cast<size_t>(std::count(owner_.begin(), owner_.end(), 0)));
  }

  std::map<AdapterVersionId, Image> images;
  double turns = 0;

 private:
  std::vector<AdapterVersionId> owner_;  // by block; 0: free
};

class HostTierProperty : public ::testing::TestWithParam<uint32_t> {
 protected:
  int Pick(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }

  void Begin(AdapterVersionId id) {
    const auto blocks = static_cast<uint32_t>(1 + Pick(12));
    const double cheapest = model_.Cheapest(blocks);
    const auto first = tier_.BeginWrite(id, blocks);
    ASSERT_EQ(first.has_value(), std::isfinite(cheapest));
    double paid = 0;
    for (AdapterVersionId left : tier_.TakeLeft()) {
      ASSERT_TRUE(model_.images.at(left).idle());
      paid += model_.Value(model_.images.at(left));
      evicted_blocks_ += model_.images.at(left).blocks;
      model_.Remove(left);
      ++evictions_;
    }
    if (!first.has_value()) return;
    ASSERT_NEAR(paid, cheapest, 1e-9 * (1 + paid)) << "some cheaper run was there";
    model_.turns = evicted_blocks_ / double{kBlocks};
    model_.Add(id, *first, blocks);
  }
  void Acquire(AdapterVersionId id) {
    const auto image = model_.images.find(id);
    const bool there = image != model_.images.end() && !image->second.writing;
    const auto first = tier_.Acquire(id);
    ASSERT_EQ(first.has_value(), there);
    if (!there) return;
    ASSERT_EQ(*first, image->second.first);
    image->second.uses =
        image->second.uses * std::exp2((image->second.used_at - model_.turns) / HostTier::kMemory) +
        1;
    image->second.used_at = model_.turns;
    ++image->second.holds;
  }
  // What happens to an image that is there.
  void Change(AdapterVersionId id, Model::Image* image) {
    const int what = Pick(3);
    if (image->writing && what == 0) {
      tier_.AbortWrite(id);
      model_.Remove(id);
    } else if (image->writing) {
      image->seconds = 0.1 * Pick(20);
      tier_.FinishWrite(id, image->seconds);
      image->writing = false;
      image->holds = 1;
    } else if (what == 0 && Pick(4) == 0) {
      tier_.Retire(id);
      image->retired = true;
    } else if (image->holds > 0) {
      tier_.Release(id);
      --image->holds;
    }
    const auto there = model_.images.find(id);
    if (there != model_.images.end() && there->second.retired && there->second.idle()) {
      ASSERT_THAT(tier_.TakeLeft(), ElementsAre(id));
      model_.Remove(id);
    }
  }

  static constexpr uint32_t kBlocks = 40;
  std::mt19937 random_{GetParam()};
  HostTier tier_{kBlocks};
  Model model_{kBlocks};
  double evicted_blocks_ = 0;
  uint64_t evictions_ = 0;
};

TEST_P(HostTierProperty, AgreesWithThePlainModel) {
  for (int step = 0; step < 4000; ++step) {
    const auto id = static_cast<AdapterVersionId>(1 + Pick(25));
    const auto image = model_.images.find(id);
    if (image == model_.images.end()) {
      Begin(id);
    } else if (!image->second.writing && Pick(3) == 0) {
      Acquire(id);
    } else {
      Change(id, &image->second);
    }
    if (HasFatalFailure()) return;
    ASSERT_TRUE(tier_.Validate().ok()) << tier_.Validate();
    ASSERT_EQ(tier_.stats().used_blocks, model_.used());
    ASSERT_EQ(tier_.stats().images, model_.images.size());
  }
  EXPECT_EQ(tier_.stats().evictions, evictions_);
  EXPECT_GT(evictions_, 100u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, HostTierProperty, ::testing::Range(1u, 21u));

}  // namespace
}  // namespace lorad
