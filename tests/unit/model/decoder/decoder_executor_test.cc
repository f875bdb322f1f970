#include "model/decoder_executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "model/sampling.h"
#include "tests/unit/model/decoder/tiny_model.h"

namespace lorad {
namespace {

using ::testing::ElementsAreArray;

std::vector<TokenId> Tokens(int count, int seed) {
  std::vector<TokenId> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((seed * 31 + i * i * 7 + i) % 61);
  return tokens;
}

Sampler GreedySampler() {
  SamplingParams params;
  params.temperature = 0;
  params.logprobs = 3;
  return Sampler(params, {}, 61);
}

// The sequence alone, computed in one go on pages of its own: its logits, [tokens, vocab].
std::vector<float> LogitsAlone(TinyModel& model, const std::vector<TokenId>& tokens,
                               const TinyAdapter* adapter, float weight = 1.0f) {
  const std::vector<uint32_t> pages =
      model.TakePages(static_cast<uint32_t>(tokens.size() / 16 + 1));
  std::vector<AdapterUse> uses;
  if (adapter != nullptr) uses.push_back(adapter->Use(weight));
  const SequenceInput sequence{.tokens = tokens, .kv_pages = pages, .adapters = uses};
  return model.executor().AllLogits({std::span(&sequence, 1)});
}

std::span<const float> LastRow(const std::vector<float>& logits) {
  return std::span(logits).last(61);
}

TokenId ArgMax(std::span<const float> row) {
  return static_cast<TokenId>(std::max_element(row.begin(), row.end()) - row.begin());
}

TEST(DecoderExecutorTest, ResultsComeInTheOrderOfTheInputWhateverTheAdapters) {
  TinyModel model;
  const auto first = model.NewAdapter(3, 1);
  const auto second = model.NewAdapter(8, 2);
  const std::vector<const TinyAdapter*> adapters = {second.get(), nullptr,     first.get(),
                                                    second.get(), first.get(), nullptr};
  const Sampler sampler = GreedySampler();

  std::vector<std::vector<TokenId>> tokens;
  std::vector<std::vector<uint32_t>> pages;
  std::vector<std::vector<AdapterUse>> uses;
  std::vector<TokenId> expected;
  for (size_t i = 0; i < adapters.size(); ++i) {
    tokens.push_back(Tokens(3 + static_cast<int>(i) * 5, static_cast<int>(i)));
    pages.push_back(model.TakePages(2));
    uses.push_back({});
    if (adapters[i] != nullptr) uses.back().push_back(adapters[i]->Use());
    expected.push_back(ArgMax(LastRow(LogitsAlone(model, tokens.back(), adapters[i]))));
  }
  std::vector<SequenceInput> sequences;
  for (size_t i = 0; i < adapters.size(); ++i) {
    sequences.push_back(
        {.tokens = tokens[i], .kv_pages = pages[i], .adapters = uses[i], .sampler = &sampler});
  }
  std::vector<SequenceResult> results;
  ASSERT_TRUE(model.executor().Execute({sequences}, &results).ok());
  ASSERT_EQ(results.size(), adapters.size());
  std::vector<TokenId> sampled;
  for (const SequenceResult& result : results) {
    ASSERT_TRUE(result.sample.has_value());
    sampled.push_back(result.sample->token);
    EXPECT_EQ(result.sample->top.size(), 3u);
    EXPECT_EQ(result.sample->top[0].token, result.sample->token);
    EXPECT_TRUE(result.scores.empty());
  }
  EXPECT_THAT(sampled, ElementsAreArray(expected));
}

TEST(DecoderExecutorTest, AdaptersAndTheirWeightsChangeTheLogits) {
  TinyModel model;
  const auto adapter = model.NewAdapter(4, 1);
  const std::vector<TokenId> tokens = Tokens(9, 3);
  const std::vector<float> base = LogitsAlone(model, tokens, nullptr);
  const std::vector<float> full = LogitsAlone(model, tokens, adapter.get());
  const std::vector<float> half = LogitsAlone(model, tokens, adapter.get(), 0.5f);
  const std::vector<float> none = LogitsAlone(model, tokens, adapter.get(), 0.0f);
  double changed = 0, norm = 0, between = 0;
  for (size_t i = 0; i < base.size(); ++i) {
    changed += std::pow(full[i] - base[i], 2);
    between += std::pow(full[i] - half[i], 2);
    norm += std::pow(base[i], 2);
    EXPECT_FLOAT_EQ(none[i], base[i]);
  }
  EXPECT_GT(changed, 0.01 * norm);
  EXPECT_GT(between, 0.001 * norm);
}

TEST(DecoderExecutorTest, ChunkedPrefillAndDecodeEqualTheWholePrompt) {
  TinyModel model;
  const auto adapter = model.NewAdapter(2, 5);
  const std::vector<AdapterUse> use = {adapter->Use()};
  const std::vector<TokenId> tokens = Tokens(41, 2);
  const std::vector<float> whole = LogitsAlone(model, tokens, adapter.get());
  const std::vector<uint32_t> pages = model.TakePages(3);
  size_t begin = 0;
  for (size_t chunk : {17u, 1u, 3u, 15u, 1u, 1u, 1u, 1u, 1u}) {
    const SequenceInput sequence{.tokens = std::span(tokens).subspan(begin, chunk),
                                 .first_position = static_cast<int>(begin),
                                 .kv_pages = pages,
                                 .adapters = use};
    const std::vector<float> logits = model.executor().AllLogits({std::span(&sequence, 1)});
    ASSERT_EQ(logits.size(), chunk * 61);
    EXPECT_TRUE(std::equal(logits.begin(), logits.end(),
                           whole.begin() + static_cast<ptrdiff_t>(begin * 61)))
        << "at " << begin;
    begin += chunk;
  }
  EXPECT_EQ(begin, tokens.size());
}

TEST(DecoderExecutorTest, UnfinishedPrefillGivesNothing) {
  TinyModel model;
  const std::vector<TokenId> tokens = Tokens(5, 1);
  const std::vector<uint32_t> pages = model.TakePages(1);
  const SequenceInput sequence{.tokens = tokens, .kv_pages = pages};
  // Leftovers of an earlier step must go.
  std::vector<SequenceResult> results(3);
  results[0].sample = SampledToken{7, 0, {}};
  results[0].scores.resize(2);
  ASSERT_TRUE(model.executor().Execute({std::span(&sequence, 1)}, &results).ok());
  ASSERT_EQ(results.size(), 1u);
  EXPECT_FALSE(results[0].sample.has_value());
  EXPECT_TRUE(results[0].scores.empty());
  ASSERT_TRUE(model.executor().Execute({}, &results).ok());
  EXPECT_TRUE(results.empty());
}

// Scores of a prompt do not depend on how many rows of logits are made at a time.
TEST(DecoderExecutorTest, ScoresInChunksOfAnySize) {
  const std::vector<TokenId> tokens = Tokens(23, 4);
  for (int max_logit_rows : {1, 2, 5, 64}) {
    TinyModel model({.max_logit_rows = max_logit_rows});
    const auto adapter = model.NewAdapter(3, 9);
    const std::vector<AdapterUse> use = {adapter->Use()};
    const std::vector<float> logits = LogitsAlone(model, tokens, adapter.get());
    const std::vector<float> base_logits = LogitsAlone(model, tokens, nullptr);

    std::vector<TokenId> targets(tokens.begin() + 1, tokens.end());
    targets.push_back(-1);
    targets[4] = -1;
    const std::vector<uint32_t> pages = model.TakePages(2);
    const std::vector<uint32_t> base_pages = model.TakePages(2);
    const Sampler sampler = GreedySampler();
    const std::vector<SequenceInput> sequences = {
        {.tokens = tokens, .kv_pages = base_pages, .score_targets = targets},
        {.tokens = tokens,
         .kv_pages = pages,
         .adapters = use,
         .sampler = &sampler,
         .score_targets = targets,
         .score_top = 2}};
    std::vector<SequenceResult> results;
    ASSERT_TRUE(model.executor().Execute({sequences}, &results).ok());
    EXPECT_FALSE(results[0].sample.has_value());
    ASSERT_TRUE(results[1].sample.has_value());
    EXPECT_EQ(results[1].sample->token, ArgMax(LastRow(logits)));
    ASSERT_EQ(results[0].scores.size(), tokens.size() - 2);
    ASSERT_EQ(results[1].scores.size(), tokens.size() - 2);
    size_t at = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (targets[i] < 0) continue;
      const auto row = [&](const std::vector<float>& all) {
        return std::span(all).subspan(i * 61, 61);
      };
      const SampledToken expected = ScoreToken(row(logits), targets[i], 2);
      EXPECT_EQ(results[1].scores[at].token, targets[i]);
      EXPECT_EQ(results[1].scores[at].logprob, expected.logprob);
      ASSERT_EQ(results[1].scores[at].top.size(), 2u);
      EXPECT_EQ(results[1].scores[at].top[1].token, expected.top[1].token);
      EXPECT_EQ(results[0].scores[at].logprob, ScoreToken(row(base_logits), targets[i], 0).logprob);
      EXPECT_TRUE(results[0].scores[at].top.empty());
      ++at;
    }
  }
}

TEST(DecoderExecutorTest, SamplesWithTheSequencesOwnIndexAndSeed) {
  TinyModel model;
  const std::vector<TokenId> tokens = Tokens(6, 1);
  const std::vector<float> logits = LogitsAlone(model, tokens, nullptr);
  SamplingParams params;
  params.seed = 5;
  params.temperature = 3;
  const Sampler sampler(params, tokens, 61);
  const std::vector<uint32_t> pages = model.TakePages(1);
  std::vector<SequenceResult> results;
  for (int index : {0, 1, 2, 3, 50}) {
    const SequenceInput sequence{
        .tokens = tokens, .kv_pages = pages, .sampler = &sampler, .sample_index = index};
    ASSERT_TRUE(model.executor().Execute({std::span(&sequence, 1)}, &results).ok());
    EXPECT_EQ(results[0].sample->token, sampler.Sample(LastRow(logits), index).token);
  }
}

TEST(DecoderExecutorTest, AnAdapterWithoutModulesIsTheBaseModel) {
  TinyModel model;
  TinyAdapter empty;
  empty.image.layouts = {model.backend()->PlanAdapter({}, SiteCount(model.config()), 4096)};
  const std::vector<TokenId> tokens = Tokens(4, 1);
  EXPECT_EQ(LogitsAlone(model, tokens, &empty), LogitsAlone(model, tokens, nullptr));
}

TEST(DecoderExecutorTest, TellsWhatItTakes) {
  const DecoderExecutorOptions options{.limits = {.max_rows = 64, .max_sequences = 8}};
  TinyModel model(options);
  EXPECT_GT(model.executor().activation_bytes(), 4u * 64 * (2 * 32 + 64 + 8 + 32 + 3 * 48));
  // The reference backend holds fp32 and nothing else.
  EXPECT_EQ(model.executor().weight_bytes(), sizeof(float) * CountWeights(TinyConfig()));
}

TEST(DecoderExecutorDeathTest, RefusesWhatBreaksItsLimits) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  TinyModel model({.limits = {.max_rows = 8, .max_sequences = 2}});
  std::vector<SequenceResult> results;
  const std::vector<uint32_t> pages = model.TakePages(2);
  auto run = [&](std::vector<SequenceInput> sequences) {
    (void)model.executor().Execute({sequences}, &results);
  };
  const std::vector<TokenId> five = Tokens(5, 1);
  const std::vector<TokenId> nine = Tokens(9, 1);
  const std::vector<TokenId> unknown = {61};
  const SequenceInput good{.tokens = five, .kv_pages = pages};
  EXPECT_DEATH(run({{.tokens = nine, .kv_pages = pages}}), "max_rows");
  EXPECT_DEATH(run({good, good, good}), "max_sequences");
  EXPECT_DEATH(run({{.kv_pages = pages}}), "tokens.empty");
  EXPECT_DEATH(run({{.tokens = five, .first_position = 28, .kv_pages = pages}}), "kv_pages");
  EXPECT_DEATH(run({{.tokens = unknown, .kv_pages = pages}}), "vocab_size");
  EXPECT_DEATH(run({{.tokens = five, .kv_pages = pages, .score_targets = nine}}), "score_targets");
}

}  // namespace
}  // namespace lorad
