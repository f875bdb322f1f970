#include "model/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "kernels/sample_stream.h"
#include "memory/base/error_detail.h"

namespace lorad {
namespace {

using kernels::Philox4x32;
using kernels::UniformAt;
using ::testing::ElementsAre;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

TokenId SampleOne(const SamplingParams& params, std::vector<float> logits, int index = 0) {
  return Sampler(params, {}, static_cast<int>(logits.size())).Sample(logits, index).token;
}

SamplingParams Greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

// How often each token is drawn at `draws` output indices.
std::vector<int> Histogram(const SamplingParams& params, const std::vector<float>& logits,
                           int draws) {
  const Sampler sampler(params, {}, static_cast<int>(logits.size()));
  std::vector<int> counts(logits.size());
  for (int i = 0; i < draws; ++i) ++counts[static_cast<size_t>(sampler.Sample(logits, i).token)];
  return counts;
}

std::set<TokenId> Support(const SamplingParams& params, const std::vector<float>& logits) {
  const std::vector<int> counts = Histogram(params, logits, 4000);
  std::set<TokenId> seen;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] > 0) seen.insert(static_cast<TokenId>(i));
  }
  return seen;
}

double ChiSquare(const std::vector<int>& counts, const std::vector<double>& probabilities) {
  const int draws = std::accumulate(counts.begin(), counts.end(), 0);
  double chi = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const double expected = probabilities[i] * draws;
    if (expected == 0) {
      EXPECT_EQ(counts[i], 0) << "token " << i;
      continue;
    }
    chi += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  return chi;
}

std::vector<double> Softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  double sum = 0;
  for (float x : logits) sum += p.emplace_back(std::exp(x / temperature));
  for (double& x : p) x /= sum;
  return p;
}

// log(p) as logits: at temperature 1 the distribution is p itself.
std::vector<float> Logs(const std::vector<double>& p) {
  std::vector<float> logits;
  for (double x : p) logits.push_back(static_cast<float>(std::log(x)));
  return logits;
}

TEST(PhiloxTest, MatchesThePublishedVectors) {
  EXPECT_THAT(Philox4x32({{0, 0, 0, 0}}, {{0, 0}}).words,
              ElementsAre(0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u));
  const uint32_t ones = 0xffffffff;
  EXPECT_THAT(Philox4x32({{ones, ones, ones, ones}}, {{ones, ones}}).words,
              ElementsAre(0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu));
  EXPECT_THAT(
      Philox4x32({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, {{0xa4093822, 0x299f31d0}})
          .words,
      ElementsAre(0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u));
}

TEST(PhiloxTest, UniformsLieInRangeAndDifferBySeedAndIndex) {
  std::set<double> seen;
  for (uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32, ~uint64_t{0}}) {
    for (uint64_t index = 0; index < 250; ++index) {
      const double u = UniformAt(seed, index);
      EXPECT_GE(u, 0);
      EXPECT_LT(u, 1);
      seen.insert(u);
    }
  }
  EXPECT_EQ(seen.size(), 1000u);
}

TEST(GreedyTest, TakesTheLargestAndTheLowestIdOfATie) {
  EXPECT_EQ(SampleOne(Greedy(), {1, 3, 2}), 1);
  EXPECT_EQ(SampleOne(Greedy(), {1, 3, 3, 3}), 1);
  EXPECT_EQ(SampleOne(Greedy(), {-5, -5, -5}), 0);
}

TEST(GreedyTest, NanNeverWins) {
  EXPECT_EQ(SampleOne(Greedy(), {kNan, -2, kNan, -1}), 3);
  EXPECT_EQ(SampleOne(Greedy(), {kNan, kNan}), 0);
  EXPECT_EQ(SampleOne(Greedy(), {-kInf, -kInf}), 0);
  EXPECT_EQ(SampleOne(Greedy(), {1, kNan, kInf, kInf}), 2);
}

TEST(RandomTest, SurvivesNanAndInfinity) {
  SamplingParams params;
  params.logprobs = 3;
  for (int variant = 0; variant < 8; ++variant) {
    params.top_k = (variant & 1) != 0 ? 2 : 0;
    params.top_p = (variant & 2) != 0 ? 0.5f : 1.0f;
    params.min_p = (variant & 4) != 0 ? 0.1f : 0.0f;
    for (int index = 0; index < 50; ++index) {
      EXPECT_EQ(SampleOne(params, {kNan, kNan, kNan}, index), 0);
      EXPECT_EQ(SampleOne(params, {kNan, 0.5f, -kInf}, index), 1);
      EXPECT_EQ(SampleOne(params, {0, kInf, kNan, kInf}, index), 1);
      EXPECT_EQ(SampleOne(params, {-kInf, -kInf, 2}, index), 2);
    }
  }
}

TEST(RandomTest, FollowsTheSoftmaxAtEachTemperature) {
  const std::vector<float> logits = {0.3f, -1.0f, 2.0f, 1.1f, 0.0f, 0.9f, -0.4f, 1.7f};
  for (float temperature : {0.5f, 1.0f, 3.0f}) {
    SamplingParams params;
    params.temperature = temperature;
    params.seed = 42;
    const double chi = ChiSquare(Histogram(params, logits, 20000), Softmax(logits, temperature));
    EXPECT_LT(chi, 35) << "7 degrees of freedom, p < 1e-5; temperature " << temperature;
  }
}

TEST(RandomTest, ChiSquareNoticesTheWrongTemperature) {
  const std::vector<float> logits = {0.3f, -1.0f, 2.0f, 1.1f};
  SamplingParams params;
  params.temperature = 1.1f;
  EXPECT_GT(ChiSquare(Histogram(params, logits, 20000), Softmax(logits, 1.0)), 35);
}

TEST(RandomTest, LongRowsFollowTheSoftmaxToo) {
  std::vector<float> logits(5000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i)) * 3;
  const std::vector<double> p = Softmax(logits, 1.0);
  SamplingParams params;
  params.seed = 7;
  const std::vector<int> counts = Histogram(params, logits, 20000);
  // Ten buckets of 500 neighbours.
  std::vector<int> bucket_counts(10);
  std::vector<double> bucket_p(10);
  for (size_t i = 0; i < logits.size(); ++i) {
    bucket_counts[i / 500] += counts[i];
    bucket_p[i / 500] += p[i];
  }
  EXPECT_LT(ChiSquare(bucket_counts, bucket_p), 40);
}

TEST(RandomTest, TheTokenIsTheOneAtTheUniformsPlaceInTheCumulativeDistribution) {
  const std::vector<double> p = {0.1, 0.2, 0.3, 0.4};
  SamplingParams params;
  params.seed = 1234567890123u;
  for (int index = 0; index < 200; ++index) {
    const double u = UniformAt(params.seed, static_cast<uint64_t>(index));
    const TokenId expected = u < 0.1 ? 0 : u < 0.3 ? 1 : u < 0.6 ? 2 : 3;
    EXPECT_EQ(SampleOne(params, Logs(p), index), expected) << u;
  }
}

TEST(RandomTest, TinyTemperaturesAreGreedy) {
  SamplingParams params;
  for (float temperature : {1e-6f, 1e-30f, 1e-44f}) {
    params.temperature = temperature;
    EXPECT_EQ(Support(params, {0.9f, 1.0f, 0.8f}), std::set<TokenId>{1});
  }
}

TEST(FilterTest, TopKKeepsTheKLargest) {
  SamplingParams params;
  params.top_k = 2;
  EXPECT_EQ(Support(params, {0.1f, 0.4f, 0.2f, 0.3f}), (std::set<TokenId>{1, 3}));
  params.top_k = 3;
  EXPECT_EQ(Support(params, {1, 1, 1, 1, 1}), (std::set<TokenId>{0, 1, 2})) << "ties: lowest ids";
  params.top_k = 99;
  EXPECT_EQ(Support(params, {1, 1, 1}), (std::set<TokenId>{0, 1, 2}));
}

TEST(FilterTest, TopPKeepsTheSmallestSetThatReachesTheMass) {
  const std::vector<float> logits = Logs({0.15, 0.5, 0.05, 0.3});
  SamplingParams params;
  params.top_p = 0.45f;
  EXPECT_EQ(Support(params, logits), (std::set<TokenId>{1}));
  params.top_p = 0.7f;
  EXPECT_EQ(Support(params, logits), (std::set<TokenId>{1, 3}));
  params.top_p = 0.9f;
  EXPECT_EQ(Support(params, logits), (std::set<TokenId>{0, 1, 3}));
  params.top_p = 0.97f;
  EXPECT_EQ(Support(params, logits), (std::set<TokenId>{0, 1, 2, 3}));
  params.top_p = 1e-9f;
  EXPECT_EQ(Support(params, logits), (std::set<TokenId>{1})) << "never empty";
}

TEST(FilterTest, MinPKeepsWhatIsLikelyEnoughBesideTheLikeliest) {
  const std::vector<float> logits = Logs({0.15, 0.5, 0.05, 0.3});
  SamplingParams params;
  params.min_p = 0.2f;  // at least 0.1
  EXPECT_EQ(Support(params, logits), (std::set<TokenId>{0, 1, 3}));
  params.min_p = 0.55f;
  EXPECT_EQ(Support(params, logits), (std::set<TokenId>{1, 3}));
  params.min_p = 1.0f;
  EXPECT_EQ(Support(params, logits), (std::set<TokenId>{1}));
}

TEST(FilterTest, TemperatureComesBeforeMinPAndTopP) {
  const std::vector<float> logits = Logs({0.8, 0.2});
  SamplingParams params;
  params.temperature = 10;  // about 0.53, 0.47
  params.min_p = 0.5f;
  EXPECT_EQ(Support(params, logits), (std::set<TokenId>{0, 1}));
  params.min_p = 0;
  params.top_p = 0.7f;
  EXPECT_EQ(Support(params, logits), (std::set<TokenId>{0, 1}));
}

TEST(FilterTest, LaterFiltersSeeWhatEarlierOnesLeft) {
  const std::vector<float> logits = Logs({0.3, 0.25, 0.2, 0.15, 0.1});
  SamplingParams params;
  params.top_p = 0.6f;  // of the whole: 0.3 + 0.25 + 0.2
  EXPECT_EQ(Support(params, logits), (std::set<TokenId>{0, 1, 2}));
  params.top_k = 3;  // of 0.75: 0.3 + 0.25 >= 0.45
  EXPECT_EQ(Support(params, logits), (std::set<TokenId>{0, 1}));
  params.top_k = 0;
  params.min_p = 0.8f;  // leaves 0.55, of which 0.6 is 0.33
  EXPECT_EQ(Support(params, logits), (std::set<TokenId>{0, 1}));
}

TEST(FilterTest, WhatIsLeftKeepsItsProportions) {
  const std::vector<float> logits = Logs({0.15, 0.5, 0.05, 0.3});
  SamplingParams params;
  params.top_k = 3;
  params.top_p = 0.8f;
  EXPECT_LT(ChiSquare(Histogram(params, logits, 20000), {0, 0.625, 0, 0.375}), 20);
}

// The filters against a full sort, on rows long enough for every partial selection.
TEST(FilterTest, AgreesWithAFullSort) {
  constexpr size_t kVocab = 3001;
  std::vector<float> logits(kVocab);
  for (size_t i = 0; i < kVocab; ++i) {
    logits[i] = static_cast<float>(std::floor(UniformAt(5, i) * 400)) / 40;  // many ties
  }
  std::vector<size_t> sorted(kVocab);
  std::iota(sorted.begin(), sorted.end(), 0);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  for (int top_k : {0, 1, 5, 300, 2900}) {
    for (float top_p : {1.0f, 0.999f, 0.6f, 0.05f}) {
      std::vector<size_t> kept = sorted;
      if (top_k > 0) kept.resize(static_cast<size_t>(top_k));
      double sum = 0;
      for (size_t i : kept) sum += std::exp(logits[i]);
      double mass = 0;
      size_t n = 0;
      while (n < kept.size() && (n == 0 || mass < double{top_p} * sum)) {
        mass += std::exp(logits[kept[n++]]);
      }
      kept.resize(n);
      const std::set<size_t> expected(kept.begin(), kept.end());

      SamplingParams params;
      params.top_k = top_k;
      params.top_p = top_p;
      const std::vector<int> counts = Histogram(params, logits, 300);
      // The draw must be the token at the uniform's place among exactly the kept tokens, by id.
      std::vector<double> cumulative;
      std::vector<size_t> ids(expected.begin(), expected.end());
      double total = 0;
      for (size_t i : ids) cumulative.push_back(total += std::exp(logits[i] - logits[sorted[0]]));
      std::vector<int> wanted(kVocab);
      int borderline = 0;
      for (uint64_t index = 0; index < 300; ++index) {
        const double target = UniformAt(0, index) * total;
        const auto at = std::upper_bound(cumulative.begin(), cumulative.end(), target);
        ++wanted[ids[static_cast<size_t>(at - cumulative.begin())]];
        if (std::abs(*at - target) < 1e-5 * total) ++borderline;
      }
      int different = 0;
      for (size_t i = 0; i < kVocab; ++i) different += std::abs(counts[i] - wanted[i]);
      EXPECT_LE(different, 4 * borderline) << "top_k " << top_k << " top_p " << top_p;
    }
  }
}

TEST(PenaltyTest, RepetitionDividesPositiveAndMultipliesNegativeLogitsOnce) {
  SamplingParams params = Greedy();
  params.repetition_penalty = 2;
  const std::vector<TokenId> prompt = {0, 0, 0};
  Sampler sampler(params, prompt, 3);
  EXPECT_EQ(sampler.Sample(std::vector<float>{4, 1.9f, 0}, 0).token, 0) << "4 / 2 > 1.9";
  EXPECT_EQ(sampler.Sample(std::vector<float>{4, 2.1f, 0}, 0).token, 1);
  EXPECT_EQ(sampler.Sample(std::vector<float>{-1, -1.9f, -3}, 0).token, 1) << "-1 * 2 < -1.9";
  sampler.Accept(0);  // in the prompt and in the output: still once
  EXPECT_EQ(sampler.Sample(std::vector<float>{4, 1.9f, 0}, 1).token, 0);
  sampler.Accept(1);
  EXPECT_EQ(sampler.Sample(std::vector<float>{4, 3.9f, 1.99f}, 2).token, 0);
  EXPECT_EQ(sampler.Sample(std::vector<float>{4, 3.9f, 2.01f}, 2).token, 2);
}

TEST(PenaltyTest, PresenceCountsOnceAndFrequencyEachTimeAndThePromptNever) {
  SamplingParams params = Greedy();
  params.presence_penalty = 1;
  const std::vector<TokenId> prompt = {0};
  Sampler presence(params, prompt, 2);
  EXPECT_EQ(presence.Sample(std::vector<float>{1, 0.5f}, 0).token, 0);
  presence.Accept(0);
  presence.Accept(0);
  EXPECT_EQ(presence.Sample(std::vector<float>{1.6f, 0.5f}, 2).token, 0);
  EXPECT_EQ(presence.Sample(std::vector<float>{1.4f, 0.5f}, 2).token, 1);

  params.presence_penalty = 0;
  params.frequency_penalty = 1;
  Sampler frequency(params, prompt, 2);
  frequency.Accept(0);
  frequency.Accept(0);
  EXPECT_EQ(frequency.Sample(std::vector<float>{2.6f, 0.5f}, 2).token, 0);
  EXPECT_EQ(frequency.Sample(std::vector<float>{2.4f, 0.5f}, 2).token, 1);

  params.frequency_penalty = -1;
  Sampler reward(params, prompt, 2);
  reward.Accept(1);
  EXPECT_EQ(reward.Sample(std::vector<float>{1, 0.5f}, 1).token, 1);
}

TEST(PenaltyTest, BiasIsAddedToTheLogits) {
  SamplingParams params = Greedy();
  params.logit_bias = {{2, 3.0f}, {0, -100.0f}};
  EXPECT_EQ(SampleOne(params, {9, 1, 0}), 2);
  EXPECT_EQ(SampleOne(params, {9, 4, 0}), 1);
}

TEST(PenaltyTest, StopTokensAreMaskedUntilMinTokens) {
  SamplingParams params = Greedy();
  params.min_tokens = 2;
  params.stop_tokens = {1, 2};
  params.logit_bias = {{1, 50.0f}};
  const std::vector<float> logits = {0, 5, 4};
  EXPECT_EQ(SampleOne(params, logits, 0), 0);
  EXPECT_EQ(SampleOne(params, logits, 1), 0);
  EXPECT_EQ(SampleOne(params, logits, 2), 1);
  params.temperature = 1;
  params.top_p = 0.9f;
  for (int index = 0; index < 2; ++index) EXPECT_EQ(SampleOne(params, logits, index), 0);
}

TEST(LogprobTest, IsTheLogSoftmaxOfTheRawLogits) {
  const std::vector<float> logits = {1, 2, 3, 2};
  const std::vector<double> p = Softmax(logits, 1.0);
  const SampledToken scored = ScoreToken(logits, 0, 3);
  EXPECT_EQ(scored.token, 0);
  EXPECT_NEAR(scored.logprob, std::log(p[0]), 1e-6);
  ASSERT_EQ(scored.top.size(), 3u);
  EXPECT_EQ(scored.top[0].token, 2);
  EXPECT_EQ(scored.top[1].token, 1) << "ties: the lower id first";
  EXPECT_EQ(scored.top[2].token, 3);
  for (const TokenLogprob& t : scored.top) {
    EXPECT_NEAR(t.logprob, std::log(p[static_cast<size_t>(t.token)]), 1e-6);
  }
  EXPECT_EQ(ScoreToken(logits, 0, 20).top.size(), 4u);
}

TEST(LogprobTest, BiasTemperatureAndPenaltiesDoNotChangeIt) {
  const std::vector<float> logits = {1, 2, 3, 2};
  SamplingParams params = Greedy();
  params.logit_bias = {{0, 50.0f}};
  params.repetition_penalty = 1.5f;
  params.logprobs = 1;
  const SampledToken sampled = Sampler(params, {}, 4).Sample(logits, 0);
  EXPECT_EQ(sampled.token, 0);
  EXPECT_FLOAT_EQ(sampled.logprob, ScoreToken(logits, 0, 0).logprob);
  ASSERT_EQ(sampled.top.size(), 1u);
  EXPECT_EQ(sampled.top[0].token, 2);
  params.logprobs = -1;
  EXPECT_TRUE(Sampler(params, {}, 4).Sample(logits, 0).top.empty());
}

TEST(LogprobTest, LongRowsAreAccurate) {
  std::vector<float> logits(32003);
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] = static_cast<float>(UniformAt(3, i) * 30 - 20);
    sum += std::exp(double{logits[i]});
  }
  EXPECT_NEAR(ScoreToken(logits, 77, 0).logprob, logits[77] - std::log(sum), 2e-5);
}

TEST(LogprobTest, IsNeverNan) {
  for (const std::vector<float>& logits :
       {std::vector<float>{kNan, kNan}, {kNan, 1}, {kInf, kInf}, {-kInf, -kInf}, {-kInf, kInf}}) {
    for (TokenId token : {0, 1}) {
      const SampledToken scored = ScoreToken(logits, token, 2);
      EXPECT_FALSE(std::isnan(scored.logprob));
      for (const TokenLogprob& t : scored.top) EXPECT_FALSE(std::isnan(t.logprob));
    }
  }
}

TEST(DeterminismTest, TheTokenDependsOnSeedAndIndexAlone) {
  std::vector<float> logits(997);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(UniformAt(1, i) * 4);
  SamplingParams params;
  params.seed = 99;
  params.top_p = 0.9f;
  params.top_k = 400;
  const Sampler sampler(params, {}, 997);
  std::vector<TokenId> forward, backward, other_seed;
  for (int i = 0; i < 100; ++i) forward.push_back(sampler.Sample(logits, i).token);
  for (int i = 99; i >= 0; --i) backward.push_back(sampler.Sample(logits, i).token);
  std::reverse(backward.begin(), backward.end());
  EXPECT_EQ(forward, backward);
  params.seed = 100;
  for (int i = 0; i < 100; ++i) other_seed.push_back(SampleOne(params, logits, i));
  EXPECT_NE(forward, other_seed);

  std::vector<std::vector<TokenId>> by_thread(4, std::vector<TokenId>(100));
  std::vector<std::thread> threads;
  for (std::vector<TokenId>& tokens : by_thread) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) {
        tokens[static_cast<size_t>(i)] = sampler.Sample(logits, i).token;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<TokenId>& tokens : by_thread) EXPECT_EQ(tokens, forward);
}

TEST(ValidationTest, DefaultsAndLimitsAreValid) {
  EXPECT_TRUE(ValidateSamplingParams({}, 100).ok());
  SamplingParams params;
  params.temperature = 0;
  params.top_p = 1e-6f;
  params.min_p = 1;
  params.presence_penalty = -2;
  params.frequency_penalty = 2;
  params.logit_bias.assign(1024, {99, -100.0f});
  params.logprobs = 20;
  params.stop_tokens = {0, 99};
  EXPECT_TRUE(ValidateSamplingParams(params, 100).ok());
}

TEST(ValidationTest, EachBadFieldIsNamed) {
  struct Case {
    std::string field;
    std::function<void(SamplingParams&)> spoil;
  };
  const std::vector<Case> cases = {
      {"sampling.temperature", [](auto& p) { p.temperature = -0.1f; }},
      {"sampling.temperature", [](auto& p) { p.temperature = kNan; }},
      {"sampling.temperature", [](auto& p) { p.temperature = kInf; }},
      {"sampling.top_k", [](auto& p) { p.top_k = -1; }},
      {"sampling.top_p", [](auto& p) { p.top_p = 0; }},
      {"sampling.top_p", [](auto& p) { p.top_p = 1.01f; }},
      {"sampling.top_p", [](auto& p) { p.top_p = kNan; }},
      {"sampling.min_p", [](auto& p) { p.min_p = -0.01f; }},
      {"sampling.min_p", [](auto& p) { p.min_p = 1.5f; }},
      {"sampling.repetition_penalty", [](auto& p) { p.repetition_penalty = 0; }},
      {"sampling.repetition_penalty", [](auto& p) { p.repetition_penalty = kInf; }},
      {"sampling.presence_penalty", [](auto& p) { p.presence_penalty = 2.1f; }},
      {"sampling.frequency_penalty", [](auto& p) { p.frequency_penalty = -2.1f; }},
      {"sampling.logit_bias",
       [](auto& p) {
         p.logit_bias.assign(1025, {0, 0.0f});
       }},
      {"sampling.logit_bias",
       [](auto& p) {
         p.logit_bias = {{100, 0.0f}};
       }},
      {"sampling.logit_bias",
       [](auto& p) {
         p.logit_bias = {{-1, 0.0f}};
       }},
      {"sampling.logit_bias",
       [](auto& p) {
         p.logit_bias = {{0, 101.0f}};
       }},
      {"sampling.logit_bias",
       [](auto& p) {
         p.logit_bias = {{0, kNan}};
       }},
      {"sampling.min_tokens", [](auto& p) { p.min_tokens = -1; }},
      {"sampling.stop_tokens", [](auto& p) { p.stop_tokens = {100}; }},
      {"sampling.logprobs", [](auto& p) { p.logprobs = 21; }},
      {"sampling.logprobs", [](auto& p) { p.logprobs = -2; }},
  };
  for (const Case& c : cases) {
    SamplingParams params;
    c.spoil(params);
    const absl::Status status = ValidateSamplingParams(params, 100);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.field;
    EXPECT_EQ(GetErrorDetail(status).field, c.field);
  }
}

}  // namespace
}  // namespace lorad
