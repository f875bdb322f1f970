// DecoderExecutor over a backend that works late: two steps under way, tokens drawn on the device,
// and the same results as one step after the other on the host.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "tests/unit/model/decoder/late_backend.h"
#include "tests/unit/model/decoder/tiny_model.h"

namespace lorad {
namespace {

struct Wish {
  std::vector<TokenId> prompt;
  SamplingParams sampling;
  int adapter = -1;
};

std::vector<Wish> Wishes() {
  std::vector<Wish> wishes(5);
  for (size_t i = 0; i < wishes.size(); ++i) {
    for (size_t t = 0; t < 3 + 5 * i; ++t) {
      wishes[i].prompt.push_back(static_cast<TokenId>((7 * i + 3 * t) % 61));
    }
    wishes[i].sampling = {.temperature = 1.3f, .seed = 40 + i};
  }
  wishes[0].sampling.temperature = 0;
  wishes[1].sampling.top_k = 7;
  wishes[2].sampling.top_p = 0.7f;
  wishes[3].sampling.min_p = 0.05f;
  wishes[1].adapter = 0;
  wishes[3].adapter = 1;
  wishes[4].adapter = 0;
  return wishes;
}

constexpr DecoderExecutorOptions kOptions{.limits = {.max_rows = 128, .max_sequences = 8}};

// Sequences of one model, each with pages enough.
class Group {
 public:
  Group(TinyModel* model, std::vector<Wish> wishes) : model_(model), wishes_(std::move(wishes)) {
    for (uint64_t seed : {1, 2}) adapters_.push_back(model->NewAdapter(4, seed));
    for (const Wish& wish : wishes_) {
      samplers_.emplace_back(wish.sampling, wish.prompt, model->config().vocab_size);
      pages_.push_back(model->TakePages(6));
      tokens_.push_back(wish.prompt);
      uses_.push_back({});
      if (wish.adapter >= 0) uses_.back() = {adapters_[size_t(wish.adapter)]->Use()};
    }
    lengths_.assign(wishes_.size(), 0);
    outputs_.assign(wishes_.size(), 0);
    slots_.assign(wishes_.size(), -1);
  }

  // The next token of these sequences, of a prompt the first time; no token is known that an
  // overlapped step before samples.
  void Submit(const std::vector<size_t>& which) {
    std::vector<SequenceInput>& inputs = inputs_;
    std::vector<std::vector<TokenId>>& known = known_;
    inputs.clear();
    known.assign(which.size(), {});
    bool drawn = true;
    for (size_t i = 0; i < which.size(); ++i) {
      const size_t s = which[i];
      SequenceInput input;
      const auto length = static_cast<size_t>(lengths_[s]);
      if (length < tokens_[s].size()) {
        known[i].assign(tokens_[s].begin() + lengths_[s], tokens_[s].end());
      } else {
        known[i] = {-1};
        input.token_from_previous = slots_[s];
      }
      input.tokens = known[i];
      input.first_position = lengths_[s];
      input.kv_pages = pages_[s];
      input.adapters = uses_[s];
      input.sampler = &samplers_[s];
      input.sample_index = outputs_[s]++;
      inputs.push_back(input);
      drawn = drawn && model_->executor().CanDraw(wishes_[s].sampling);
      lengths_[s] += static_cast<int>(known[i].size());
    }
    for (size_t s = 0; s < slots_.size(); ++s) {
      const auto at = std::find(which.begin(), which.end(), s);
      slots_[s] = at == which.end() ? -1 : static_cast<int>(at - which.begin());
    }
    ASSERT_TRUE(model_->executor().Submit({inputs}).ok());
    if (drawn) {  // then the contract allows it
      inputs.clear();
      known.clear();
    }
    under_way_.push_back(which);
  }
  void Collect() {
    std::vector<SequenceResult> results;
    ASSERT_TRUE(model_->executor().Collect(&results).ok());
    const std::vector<size_t> which = under_way_.front();
    under_way_.erase(under_way_.begin());
    ASSERT_EQ(results.size(), which.size());
    for (size_t i = 0; i < which.size(); ++i) {
      ASSERT_TRUE(results[i].sample.has_value());
      tokens_[which[i]].push_back(results[i].sample->token);
    }
  }
  const std::vector<std::vector<TokenId>>& tokens() const { return tokens_; }

 private:
  TinyModel* const model_;
  const std::vector<Wish> wishes_;
  std::vector<std::unique_ptr<TinyAdapter>> adapters_;
  std::vector<Sampler> samplers_;
  std::vector<std::vector<uint32_t>> pages_;
  std::vector<std::vector<AdapterUse>> uses_;
  std::vector<std::vector<TokenId>> tokens_;
  std::vector<int> lengths_;  // submitted
  std::vector<int> outputs_;  // submitted
  std::vector<int> slots_;    // in the last step that was submitted
  std::vector<std::vector<size_t>> under_way_;
  std::vector<SequenceInput> inputs_;  // of the last step
  std::vector<std::vector<TokenId>> known_;
};

// Which sequences run in each of some steps: all at first, then any.
std::vector<std::vector<size_t>> Steps(size_t sequences, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::vector<size_t>> steps;
  for (int step = 0; step < 12; ++step) {
    std::vector<size_t> which;
    for (size_t s = 0; s < sequences; ++s) {
      if (step == 0 || random() % 4 != 0) which.push_back(s);
    }
    std::shuffle(which.begin(), which.end(), random);
    if (!which.empty()) steps.push_back(which);
  }
  return steps;
}

TEST(OverlappedExecutorTest, SameTokensAsOneStepAfterTheOther) {
  for (uint32_t seed = 0; seed < 10; ++seed) {
    TinyModel plain(kOptions);
    auto late = std::make_unique<LateBackend>();
    LateBackend* const backend = late.get();
    TinyModel model(kOptions, TinyConfig(), std::move(late));
    ASSERT_TRUE(model.executor().Overlaps() && !plain.executor().Overlaps());
    Group expected(&plain, Wishes()), group(&model, Wishes());
    size_t submitted = 0;
    for (const std::vector<size_t>& which : Steps(Wishes().size(), seed)) {
      expected.Submit(which);
      expected.Collect();
      group.Submit(which);
      EXPECT_EQ(backend->finished(), submitted == 0 ? 0 : submitted - 1)
          << "Submit waits for nothing";
      if (submitted++ > 0) group.Collect();
    }
    group.Collect();
    EXPECT_EQ(group.tokens(), expected.tokens());
    EXPECT_EQ(backend->sample_calls, static_cast<int>(submitted));
  }
}

TEST(OverlappedExecutorTest, DrawnAndHostSamplesInOneStep) {
  std::vector<Wish> wishes = Wishes();
  wishes[0].sampling.logprobs = 3;
  wishes[2].sampling.repetition_penalty = 1.5f;
  TinyModel plain(kOptions);
  auto late = std::make_unique<LateBackend>();
  LateBackend* const backend = late.get();
  TinyModel model(kOptions, TinyConfig(), std::move(late));
  Group expected(&plain, wishes), group(&model, wishes);
  for (const std::vector<size_t>& which : Steps(wishes.size(), 1)) {
    for (Group* g : {&expected, &group}) {
      g->Submit(which);
      g->Collect();
    }
  }
  EXPECT_EQ(group.tokens(), expected.tokens());
  EXPECT_GT(backend->sample_calls, 5);
}

// The elder step draws, the younger needs the host and goes on from its tokens.
TEST(OverlappedExecutorTest, StepForTheHostMayFollowOneUnderWay) {
  std::vector<Wish> wishes = Wishes();
  wishes[4].sampling.presence_penalty = 1;
  TinyModel plain(kOptions), model(kOptions, TinyConfig(), std::make_unique<LateBackend>());
  Group expected(&plain, wishes), group(&model, wishes);
  for (int i = 0; i < 4; ++i) {
    for (const std::vector<size_t>& which :
         {std::vector<size_t>{0, 1, 2}, std::vector<size_t>{2, 4, 0}}) {
      expected.Submit(which);
      expected.Collect();
    }
    group.Submit({0, 1, 2});
    group.Submit({2, 4, 0});
    group.Collect();
    group.Collect();
  }
  EXPECT_EQ(group.tokens(), expected.tokens());
}

TEST(OverlappedExecutorTest, StepsWithoutSamplesAreWaitedForToo) {
  auto late = std::make_unique<LateBackend>();
  LateBackend* const backend = late.get();
  TinyModel model(kOptions, TinyConfig(), std::move(late));
  const std::vector<uint32_t> pages = model.TakePages(2);
  const std::vector<TokenId> tokens = {1, 2, 3};
  const SequenceInput input{.tokens = tokens, .kv_pages = pages};
  std::vector<SequenceResult> results;
  ASSERT_TRUE(model.executor().Submit({.sequences = {&input, 1}}).ok());
  EXPECT_EQ(backend->finished(), 0u);
  ASSERT_TRUE(model.executor().Collect(&results).ok());
  EXPECT_EQ(backend->finished(), 1u);
  ASSERT_EQ(results.size(), 1u);
  EXPECT_FALSE(results[0].sample.has_value());
}

TEST(OverlappedExecutorTest, ErrorOfTheDeviceComesWithTheResults) {
  for (const bool samples : {false, true}) {
    auto late = std::make_unique<LateBackend>();
    late->error = absl::InternalError("on fire");
    TinyModel model(kOptions, TinyConfig(), std::move(late));
    const std::vector<uint32_t> pages = model.TakePages(2);
    const std::vector<TokenId> tokens = {1, 2, 3};
    const Sampler sampler({}, tokens, 61);
    const SequenceInput input{
        .tokens = tokens, .kv_pages = pages, .sampler = samples ? &sampler : nullptr};
    std::vector<SequenceResult> results;
    EXPECT_EQ(model.executor().Execute({.sequences = {&input, 1}}, &results),
              absl::InternalError("on fire"));
  }
}

TEST(OverlappedExecutorTest, WhatTheDeviceCanDraw) {
  TinyModel plain(kOptions), model(kOptions, TinyConfig(), std::make_unique<LateBackend>());
  const auto can = [&](const SamplingParams& params) { return model.executor().CanDraw(params); };
  EXPECT_TRUE(can({}));
  EXPECT_FALSE(plain.executor().CanDraw({}));
  EXPECT_TRUE(can({.temperature = 0, .top_k = 3, .top_p = 0.5f, .min_p = 0.1f, .seed = 7}));
  EXPECT_TRUE(can({.stop_tokens = {4}}));
  EXPECT_TRUE(can({.min_tokens = 3}));
  EXPECT_FALSE(can({.min_tokens = 3, .stop_tokens = {4}}));
  EXPECT_FALSE(can({.repetition_penalty = 1.1f}));
  EXPECT_FALSE(can({.presence_penalty = 0.1f}));
  EXPECT_FALSE(can({.frequency_penalty = 0.1f}));
  EXPECT_FALSE(can({.logit_bias = {{1, 2.0f}}}));
  EXPECT_FALSE(can({.logprobs = 0}));
}

}  // namespace
}  // namespace lorad
