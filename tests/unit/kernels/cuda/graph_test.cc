// Whole steps of a tiny model: random mixes replayed as graphs must equal the same mixes launched
// kernel by kernel, to the bit; steps that follow each other without the host; adapters that are
// still on their way.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "tests/unit/kernels/cuda/decoder_rig.h"
#include "tests/unit/kernels/cuda/test_runtime.h"

namespace lorad::kernels::cuda {
namespace {

using Advance = DecoderRig::Advance;

class StepTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_NE(NewTestRuntime(), nullptr) << "no device"; }
  static int Fit(int fast, int slow) { return TestRuntimeIsSlow() ? slow : fast; }
};

int32_t RandomToken(std::mt19937_64& random) {
  return static_cast<int32_t>(random() % 61);  // of the tiny model's vocabulary
}

int32_t Likeliest(std::span<const float> logits) {
  return static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
}

// Sequences come and go, on adapters of any rank that come and go too; most steps only decode.
class RandomMix {
 public:
  RandomMix(DecoderRig& rig, uint64_t seed) : rig_(rig), random_(seed) {}

  // The parts of the next step; the same for every rig with the same seed.
  std::vector<Advance> Next() {
    if (live_.size() < 2 || (live_.size() < 14 && random_() % 6 == 0)) Join();
    if (live_.size() > 2 && random_() % 9 == 0) Leave();
    std::vector<Advance> parts;
    for (const int sequence : live_) {
      if (!parts.empty() && random_() % 12 == 0) continue;  // paused
      const bool is_new = rig_.sequence(sequence).tokens.empty();
      Advance part{sequence, {}};
      const size_t tokens = is_new ? 1 + random_() % 20 : 1;
      for (size_t i = 0; i < tokens; ++i) part.tokens.push_back(RandomToken(random_));
      parts.push_back(std::move(part));
    }
    return parts;
  }

 private:
  void Join() {
    int adapter = -1;
    if (random_() % 4 != 0) {
      if (adapters_.size() < 5) {
        constexpr uint32_t kRanks[] = {1, 3, 8, 16, 17, 40};
        adapters_.push_back(rig_.AddAdapter(kRanks[random_() % 6], random_()));
      }
      adapter = adapters_[random_() % adapters_.size()];
    }
    live_.push_back(rig_.AddSequence(adapter, random_() % 3 == 0 ? 0.5f : 1.0f));
  }
  void Leave() {
    const size_t who = random_() % live_.size();
    rig_.DropSequence(live_[who]);
    live_.erase(live_.begin() + static_cast<ptrdiff_t>(who));
    // An adapter that nobody uses goes.
    for (size_t i = 0; i < adapters_.size(); ++i) {
      const bool used = std::ranges::any_of(
          live_, [&](int s) { return rig_.sequence(s).adapter == adapters_[i]; });
      if (used) continue;
      rig_.DropAdapter(adapters_[i]);
      adapters_.erase(adapters_.begin() + static_cast<ptrdiff_t>(i));
      return;
    }
  }

  DecoderRig& rig_;
  std::mt19937_64 random_;
  std::vector<int> live_;
  std::vector<int> adapters_;
};

TEST_F(StepTest, ReplayedMixesEqualEagerOnes) {
  const int steps = Fit(2000, 100);
  DecoderRig eager({.seed = 1, .graphs = 0}), replayed({.seed = 2}), few({.seed = 3, .graphs = 2});
  RandomMix mixes[] = {{eager, 5}, {replayed, 5}, {few, 5}};
  for (int step = 0; step < steps; ++step) {
    const auto want = eager.Step(mixes[0].Next());
    ASSERT_EQ(replayed.Step(mixes[1].Next()), want) << "step " << step;
    if (step < steps / 3) {
      ASSERT_EQ(few.Step(mixes[2].Next()), want) << "step " << step;
    }
    for (const auto& logits : want) {
      for (const float logit : logits) ASSERT_TRUE(std::isfinite(logit)) << "step " << step;
    }
  }
  EXPECT_EQ(eager.backend().program_counts().replayed, 0u);
  const auto counts = replayed.backend().program_counts();
  EXPECT_GT(counts.replayed, size_t(steps) / 2);
  EXPECT_GT(counts.captured, 4u);
  EXPECT_GT(few.backend().program_counts().captured, 2u);
}

// Prompts of any length on several adapters in one step; the rows that logits are made of are not
// the rows of the step.
TEST_F(StepTest, APromptIsComputedAsIfAlone) {
  const std::vector<std::vector<int32_t>> prompts = {{1, 2, 3, 4, 5}, {6}, {7, 8, 9}, {10, 11}};
  const std::vector<int> adapter_of = {1, 0, 1, -1};
  const auto adapters = [](DecoderRig& rig) {
    return std::vector<int>{rig.AddAdapter(8, 1), rig.AddAdapter(20, 2)};
  };
  DecoderRig crowd;
  const std::vector<int> loaded = adapters(crowd);
  std::vector<Advance> parts;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const int adapter = adapter_of[i] < 0 ? -1 : loaded[size_t(adapter_of[i])];
    parts.push_back({crowd.AddSequence(adapter), prompts[i]});
  }
  const auto together = crowd.Step(parts);
  for (size_t i = 0; i < prompts.size(); ++i) {
    DecoderRig rig;
    const std::vector<int> own = adapters(rig);
    const int adapter = adapter_of[i] < 0 ? -1 : own[size_t(adapter_of[i])];
    const auto alone = rig.Step(std::vector<Advance>{{rig.AddSequence(adapter), prompts[i]}});
    EXPECT_EQ(together[i], alone[0]) << "prompt " << i;
  }
}

// A bucket ends where the tensors do: 19 rows are 24, but only 22 fit.
TEST_F(StepTest, RowsAreRoundedUpWithinTheTensors) {
  static_assert(DecoderRig::kMaxSequences == 22 && DecoderRig::kMaxRows == 90);
  DecoderRig rig, few;
  std::vector<Advance> parts;
  for (int i = 0; i < 19; ++i) parts.push_back({rig.AddSequence(-1), {i}});
  const auto together = rig.Step(parts);
  for (int round = 0; round < 2; ++round) rig.Step(parts);
  EXPECT_EQ(rig.backend().program_counts().replayed, 2u);
  const auto alone = few.Step(std::vector<Advance>{{few.AddSequence(-1), {18}}});
  EXPECT_EQ(together[18], alone[0]);
}

TEST_F(StepTest, PromptsAreNotReplayed) {
  DecoderRig rig;
  for (int i = 0; i < 4; ++i) {
    rig.Step(std::vector<Advance>{{rig.AddSequence(-1), {1, 2, 3}}, {rig.AddSequence(-1), {4}}});
  }
  EXPECT_EQ(rig.backend().program_counts().replayed, 0u);
  EXPECT_EQ(rig.backend().program_counts().captured, 0u);
}

// Greedy decoding of three sequences: each step is given before the tokens of the one before are
// on the host.
TEST_F(StepTest, StepsFollowEachOtherWithoutTheHost) {
  const int steps = Fit(400, 40);
  const auto start = [](DecoderRig& rig) {
    const int adapter = rig.AddAdapter(8, 3);
    return std::vector<Advance>{{rig.AddSequence(-1), {1, 2, 3}},
                                {rig.AddSequence(adapter), {4}},
                                {rig.AddSequence(adapter, 0.5f), {5, 6}}};
  };
  // By hand, with the host in between.
  std::vector<std::vector<int32_t>> want;
  {
    DecoderRig rig({.graphs = 0});
    std::vector<Advance> parts = start(rig);
    for (int step = 0; step < steps; ++step) {
      std::vector<int32_t> tokens;
      for (const auto& logits : rig.Step(parts)) tokens.push_back(Likeliest(logits));
      for (size_t i = 0; i < parts.size(); ++i) parts[i].tokens = {tokens[i]};
      want.push_back(tokens);
    }
  }
  DecoderRig rig({.seed = 5});
  std::vector<Advance> parts = start(rig);
  std::vector<std::vector<int>> places;
  std::vector<uint64_t> ended;
  const auto expect_tokens = [&](int step) {
    const auto tokens = rig.backend().Sampled(ended[size_t(step)]);
    ASSERT_TRUE(tokens.ok());
    ASSERT_EQ(tokens->size(), parts.size());
    for (size_t i = 0; i < parts.size(); ++i) {
      EXPECT_EQ((*tokens)[size_t(places[size_t(step)][i])], want[size_t(step)][i])
          << "step " << step << ", part " << i;
    }
  };
  for (int step = 0; step < steps; ++step) {
    rig.Record(parts);
    ended.push_back(rig.SampleAndEnd());
    EXPECT_EQ(rig.backend().LastStep(), ended.back());
    auto& place = places.emplace_back();
    for (int i = 0; i < 3; ++i) {
      place.push_back(rig.place(i));
      parts[size_t(i)].tokens = {-1 - rig.place(i)};
    }
    if (step > 0) expect_tokens(step - 1);
  }
  expect_tokens(steps - 1);
  EXPECT_GT(rig.backend().program_counts().replayed, uint64_t(steps) / 2);
}

TEST_F(StepTest, AnAdapterOnItsWayIsWaitedForSiteBySite) {
  constexpr uint32_t kLargeRank = 120;  // an image of many pages, that is of many copies
  for (uint64_t seed = 1; seed <= uint64_t(Fit(40, 12)); ++seed) {
    std::vector<std::vector<float>> want;
    {
      DecoderRig rig;
      const int adapter = rig.AddAdapter(kLargeRank, seed);
      want = rig.Step(std::vector<Advance>{{rig.AddSequence(adapter), {1, 2, 3, 4}},
                                           {rig.AddSequence(-1), {9}}});
    }
    DecoderRig rig({.seed = seed});
    // A step whose page tables hold the pages that the image goes to. It is as large as the next,
    // for which no memory must grow: that waits for all work.
    const int gone = rig.AddAdapter(kLargeRank, 1234);
    rig.Record(
        std::vector<Advance>{{rig.AddSequence(gone), {7, 7, 7, 7}}, {rig.AddSequence(-1), {7}}});
    rig.backend().EndStep();
    rig.DropAdapter(gone);
    const int adapter = rig.StartAdapter(kLargeRank, seed);
    const std::vector<Advance> parts = {{rig.AddSequence(adapter), {1, 2, 3, 4}},
                                        {rig.AddSequence(-1), {9}}};
    rig.Record(parts);
    if (seed % 3 == 0) {
      rig.adapter(adapter).transfer.reset();  // before the step is given to the device
    }
    for (int part = 0; part < 2; ++part) {
      const auto logits = rig.Logits(part);
      EXPECT_TRUE(std::ranges::equal(logits, want[size_t(part)])) << "seed " << seed;
    }
    if (seed % 3 == 0) continue;
    EXPECT_TRUE(rig.adapter(adapter).transfer->Done());  // all of it was used
    EXPECT_TRUE(rig.adapter(adapter).transfer->Wait().ok());
  }
}

TEST_F(StepTest, DecodingWithAnAdapterOnItsWayIsNotReplayed) {
  DecoderRig rig;
  const int resident = rig.AddAdapter(8, 1);
  const int s = rig.AddSequence(resident);
  for (int i = 0; i < 3; ++i) rig.Step(std::vector<Advance>{{s, {1}}});
  const auto before = rig.backend().program_counts();
  EXPECT_GE(before.replayed, 1u);
  const int other = rig.AddSequence(rig.StartAdapter(8, 2));
  rig.Record(std::vector<Advance>{{other, {1}}});
  rig.backend().EndStep();
  EXPECT_EQ(rig.backend().program_counts().replayed, before.replayed);
  rig.Logits(0);
  rig.Step(std::vector<Advance>{{other, {1}}});
  EXPECT_EQ(rig.backend().program_counts().replayed, before.replayed + 1);  // the same program
}

TEST_F(StepTest, ADeviceThatFailsIsReported) {
  DecoderRig rig;
  const int s = rig.AddSequence(-1);
  rig.Step(std::vector<Advance>{{s, {1, 2}}});
  FailTestRuntime(rig.backend().runtime(), 5);
  rig.Record(std::vector<Advance>{{s, {3}}});
  const uint64_t step = rig.SampleAndEnd();
  EXPECT_FALSE(rig.backend().Sampled(step).ok());
  EXPECT_FALSE(rig.backend().WaitForStep(step).ok());
  EXPECT_FALSE(rig.backend().status().ok());
  // Nothing more happens, and nothing hangs.
  rig.Record(std::vector<Advance>{{s, {3}}});
  EXPECT_EQ(rig.Logits(0).size(), 61u);
  EXPECT_FALSE(rig.backend().WaitForStep(rig.backend().EndStep()).ok());
  EXPECT_FALSE(rig.backend().AllocateStaging(100).ok());
}

}  // namespace
}  // namespace lorad::kernels::cuda
