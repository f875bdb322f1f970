// A tiny model as several ranks: what one rank computes, whatever the batch, and an end for all
// when one of them fails.
#include "model/tensor_parallel_executor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "tests/unit/model/decoder/rank_group.h"
#include "tests/unit/model/decoder/tiny_model.h"

namespace lorad {
namespace {

// Of a group: from its `fails_at`th operation on this rank has failed, and only then it says so.
class FakeCommunicator final : public kernels::Communicator {
 public:
  FakeCommunicator(std::unique_ptr<kernels::Communicator> real, int fails_at)
      : real_(std::move(real)), left_(fails_at) {}

  int rank() const override { return real_->rank(); }
  int size() const override { return real_->size(); }
  void AllReduce(kernels::Tensor& x, int rows) override {
    if (Works()) real_->AllReduce(x, rows);
  }
  void AllGather(const kernels::Tensor& part, kernels::Tensor& whole, int rows) override {
    if (Works()) real_->AllGather(part, whole, rows);
  }
  void Abort() override { real_->Abort(); }
  absl::Status status() const override {
    return left_ > 0 ? real_->status() : absl::InternalError("the link is down");
  }

 private:
  bool Works() { return --left_ > 0; }

  const std::unique_ptr<kernels::Communicator> real_;
  int left_;
};

struct Failure {
  int rank = -1;  // none
  int at = 0;     // operation
};

// Of a group of reference backends.
class Group final : public RankGroup {
 public:
  Group(const ModelConfig& config, int ranks, const Failure& failure = {},
        const DecoderExecutorOptions& options = {})
      : RankGroup(config, Backends(ranks), Communicators(ranks, failure), options) {}

 private:
  static std::vector<std::unique_ptr<kernels::Backend>> Backends(int ranks) {
    std::vector<std::unique_ptr<kernels::Backend>> backends;
    for (int i = 0; i < ranks; ++i) backends.push_back(kernels::NewReferenceBackend());
    return backends;
  }
  static std::vector<std::unique_ptr<kernels::Communicator>> Communicators(int ranks,
                                                                           const Failure& failure) {
    auto communicators = kernels::NewThreadCommunicators(ranks);
    if (failure.rank >= 0) {
      auto& failing = communicators[static_cast<size_t>(failure.rank)];
      failing = std::make_unique<FakeCommunicator>(std::move(failing), failure.at);
    }
    return communicators;
  }
};

ModelConfig Biased() {
  ModelConfig config = TinyConfig();
  config.qkv_bias = config.output_bias = config.mlp_bias = config.qk_norm = true;
  return config;
}

std::vector<TokenId> Tokens(int count, int seed) {
  std::vector<TokenId> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((seed * 31 + i * i * 7 + i) % 61);
  return tokens;
}

// Three sequences at once, two of them with adapters.
template <typename Model>
std::vector<float> LogitsOf(Model& model) {
  const auto first = model.NewAdapter(3, 1), second = model.NewAdapter(8, 2);
  const std::vector<AdapterUse> uses[] = {{first->Use()}, {}, {second->Use(0.5f)}};
  std::vector<std::vector<TokenId>> tokens;
  std::vector<std::vector<uint32_t>> pages;
  std::vector<SequenceInput> sequences;
  for (int i = 0; i < 3; ++i) {
    tokens.push_back(Tokens(20 - i * 7, i));
    pages.push_back(model.TakePages(2));
  }
  for (size_t i = 0; i < 3; ++i) {
    sequences.push_back({.tokens = tokens[i], .kv_pages = pages[i], .adapters = uses[i]});
  }
  return model.executor().AllLogits({.sequences = sequences});
}

TEST(TensorParallelExecutorTest, AnyNumberOfRanksComputesWhatOneDoes) {
  for (const bool tied : {false, true}) {
    ModelConfig config = Biased();
    config.tie_embeddings = tied;
    TinyModel alone({}, config);
    const std::vector<float> expected = LogitsOf(alone);
    for (const int ranks : {1, 2, 4}) {
      Group group(config, ranks);
      const std::vector<float> logits = LogitsOf(group);
      ASSERT_EQ(logits.size(), expected.size());
      double difference = 0, norm = 0;
      for (size_t i = 0; i < logits.size(); ++i) {
        difference += std::pow(logits[i] - expected[i], 2);
        norm += std::pow(expected[i], 2);
      }
      EXPECT_LT(std::sqrt(difference / norm), 1e-6) << ranks << " ranks";
    }
  }
}

// An adapter of the head alone where a rank has no tokens: to that rank it is as the base model,
// but rows must lie in the same order everywhere.
TEST(TensorParallelExecutorTest, ARankWithoutAShareOfAnAdapterKeepsTheOrderOfRows) {
  ModelConfig config = TinyConfig();
  config.vocab_size = 5;
  const TinyFactors factors(config, 3, 9);
  const auto head = factors.factors().last(1);
  ASSERT_EQ(head[0].site, LmHeadSite(config));
  const auto run = [&](auto& model) {
    const auto adapter = model.AddAdapter(head);
    const std::vector<AdapterUse> use = {adapter->Use()};
    const std::vector<TokenId> first = {0, 1, 2, 3}, second = {4, 3};
    const std::vector<uint32_t> pages = model.TakePages(2);
    const std::vector<SequenceInput> sequences = {
        {.tokens = first, .kv_pages = std::span(pages).first(1)},
        {.tokens = second, .kv_pages = std::span(pages).last(1), .adapters = use}};
    return model.executor().AllLogits({.sequences = sequences});
  };
  TinyModel alone({}, config);
  Group group(config, 4);
  const std::vector<float> expected = run(alone), logits = run(group);
  ASSERT_EQ(logits.size(), 30u);
  for (size_t i = 0; i < logits.size(); ++i) EXPECT_NEAR(logits[i], expected[i], 1e-5) << i;
}

TEST(TensorParallelExecutorTest, SamplesAndScoresOnceForAll) {
  const std::vector<TokenId> tokens = Tokens(9, 3);
  std::vector<TokenId> targets(tokens.begin() + 1, tokens.end());
  targets.push_back(-1);
  SamplingParams params;
  params.temperature = 0;
  const Sampler sampler(params, {}, 61);
  const auto run = [&](auto& model) {
    const auto adapter = model.NewAdapter(4, 7);
    const std::vector<AdapterUse> use = {adapter->Use()};
    const std::vector<uint32_t> pages = model.TakePages(1);
    const SequenceInput input{.tokens = tokens,
                              .kv_pages = pages,
                              .adapters = use,
                              .sampler = &sampler,
                              .score_targets = targets};
    std::vector<SequenceResult> results;
    EXPECT_TRUE(model.executor().Execute({.sequences = std::span(&input, 1)}, &results).ok());
    return results;
  };
  TinyModel alone({.max_logit_rows = 3});
  Group group(TinyConfig(), 2, {}, {.max_logit_rows = 3});
  const auto expected = run(alone), results = run(group);
  ASSERT_EQ(results.size(), 1u);
  ASSERT_TRUE(results[0].sample.has_value());
  EXPECT_EQ(results[0].sample->token, expected[0].sample->token);
  ASSERT_EQ(results[0].scores.size(), expected[0].scores.size());
  for (size_t i = 0; i < results[0].scores.size(); ++i) {
    EXPECT_EQ(results[0].scores[i].token, targets[i]);
    EXPECT_NEAR(results[0].scores[i].logprob, expected[0].scores[i].logprob, 1e-4);
  }
}

// Pages that are copied, and sequences that go on, step after step.
TEST(TensorParallelExecutorTest, ChunksAndCopiedPagesGiveTheSameBits) {
  Group group(Biased(), 4);
  const std::vector<TokenId> tokens = Tokens(30, 2);
  const std::vector<uint32_t> pages = group.TakePages(2), copy = group.TakePages(2);
  const auto logits = [&](size_t begin, size_t count, const std::vector<uint32_t>& kv_pages,
                          std::span<const kernels::PageCopy> copies) {
    const SequenceInput input{.tokens = std::span(tokens).subspan(begin, count),
                              .first_position = static_cast<int>(begin),
                              .kv_pages = kv_pages};
    return group.executor().AllLogits({.sequences = std::span(&input, 1), .page_copies = copies});
  };
  const std::vector<float> whole = logits(0, 30, pages, {});
  const std::vector<kernels::PageCopy> copies = {{pages[0], copy[0]}, {pages[1], copy[1]}};
  const std::vector<float> rest = logits(17, 13, copy, copies);
  EXPECT_TRUE(std::equal(rest.begin(), rest.end(), whole.end() - 13 * 61));
}

TEST(TensorParallelExecutorTest, TheRankThatFailsEndsTheStepForAll) {
  const std::vector<TokenId> tokens = Tokens(5, 1);
  SamplingParams params;
  const Sampler sampler(params, {}, 61);
  // A step is five operations: two a layer and one for the logits.
  for (const int at : {1, 4, 5, 8, 10}) {
    for (const int rank : {0, 2}) {
      Group group(TinyConfig(), 4, {rank, at});
      const std::vector<uint32_t> pages = group.TakePages(1);
      const SequenceInput input{.tokens = tokens, .kv_pages = pages, .sampler = &sampler};
      std::vector<SequenceResult> results;
      absl::Status status;
      int steps = 0;
      while (status.ok()) {
        status = group.executor().Execute({.sequences = std::span(&input, 1)}, &results);
        ASSERT_LE(++steps, 2);
      }
      EXPECT_EQ(steps, at <= 5 ? 1 : 2);
      EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
      EXPECT_EQ(std::string(status.message()), fmt::format("rank {}: the link is down", rank));
      // It stays broken.
      EXPECT_FALSE(group.executor().Execute({.sequences = std::span(&input, 1)}, &results).ok());
    }
  }
}

TEST(TensorParallelExecutorTest, TellsWhatAllRanksTake) {
  Group group(TinyConfig(), 2);
  EXPECT_EQ(group.executor().weight_bytes(),
            2 * sizeof(float) * CountWeights(TinyConfig(), {0, 2}));
  TinyModel alone;
  EXPECT_GT(group.executor().activation_bytes(), alone.executor().activation_bytes());
}

}  // namespace
}  // namespace lorad
