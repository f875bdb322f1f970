// Logits, samples and scores against transformers + PEFT, for every architecture on every backend:
// base model and all adapters in one batch, prompts whole, in chunks, and token by token.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "fmt/format.h"
#include "model/sampling.h"
#include "tests/golden/models/golden_backends.h"
#include "tests/golden/models/golden_model.h"

namespace lorad {
namespace {

constexpr int kWhole = 1 << 20;

class ModelGoldenTest : public ::testing::TestWithParam<std::tuple<std::string, GoldenBackend>> {
 protected:
  void SetUp() override {
    model_ = std::make_unique<GoldenModel>(std::get<0>(GetParam()),
                                           MakeGoldenRanks(std::get<1>(GetParam())));
  }

  const GoldenBounds& bounds() const { return std::get<1>(GetParam()).bounds; }

  // `logits` are of AllRequests().
  void ExpectGolden(const std::vector<std::vector<float>>& logits, const std::string& how) {
    const std::vector<GoldenCase>& cases = model_->cases();
    ASSERT_EQ(logits.size(), 2 * cases.size());
    for (size_t i = 0; i < cases.size(); ++i) {
      const GoldenCase& c = cases[i];
      const std::span<const float> adapted = logits[i];
      const std::span<const float> base = logits[cases.size() + i];
      const std::string what = c.adapter + ", " + how;
      const double adapted_error = WorstRow(adapted, c.logits, model_->vocab_size());
      const double base_error = WorstRow(base, c.base, model_->vocab_size());
      EXPECT_LE(adapted_error, bounds().logits) << what;
      EXPECT_LE(base_error, bounds().logits) << what;
      // An adapter that is not applied cannot pass: its effect is large, and is compared by itself.
      ASSERT_GT(RelativeError(c.logits, c.base), 0.05) << what;
      const double effect_error =
          RelativeError(Difference(adapted, base), Difference(c.logits, c.base));
      EXPECT_LE(effect_error, bounds().effect) << what;
      worst_logits_ = std::max({worst_logits_, adapted_error, base_error});
      worst_effect_ = std::max(worst_effect_, effect_error);
    }
  }

  void TearDown() override {
    if (worst_logits_ == 0) return;
    RecordProperty("worst_logits", fmt::format("{:.2e}", worst_logits_));
    RecordProperty("worst_effect", fmt::format("{:.2e}", worst_effect_));
  }

  std::unique_ptr<GoldenModel> model_;
  double worst_logits_ = 0, worst_effect_ = 0;
};

TEST_P(ModelGoldenTest, WholePrompts) {
  ExpectGolden(model_->Run(model_->AllRequests(), [](int, size_t) { return kWhole; }), "whole");
}

TEST_P(ModelGoldenTest, PromptsInChunksGiveTheSameBits) {
  const auto requests = model_->AllRequests();
  const auto whole = model_->Run(requests, [](int, size_t) { return kWhole; });
  for (int size : {1, 3, 7}) {
    const auto chunked = model_->Run(requests, [&](int, size_t) { return size; });
    ExpectGolden(chunked, fmt::format("chunks of {}", size));
    EXPECT_EQ(chunked, whole) << "chunks of " << size;
  }
}

TEST_P(ModelGoldenTest, PrefillAndDecodeMixGivesTheSameBits) {
  const auto requests = model_->AllRequests();
  const auto whole = model_->Run(requests, [](int, size_t) { return kWhole; });
  // Some are decoding while others are still in chunks of their prompt, and not all are in every
  // step.
  const auto mixed = model_->Run(requests, [&](int step, size_t i) {
    const int prompt = model_->cases()[requests[i].tokens_of].prompt_tokens;
    switch (i % 3) {
      case 0:
        return step == 0 ? prompt : 1;
      case 1:
        return step * 5 < prompt ? 5 : 1;
      default:
        return step % 2 == 0 ? static_cast<int>(i) : 2;
    }
  });
  ExpectGolden(mixed, "mixed");
  EXPECT_EQ(mixed, whole);
}

TEST_P(ModelGoldenTest, AloneGivesTheSameBits) {
  const auto requests = model_->AllRequests();
  const auto together = model_->Run(requests, [](int, size_t) { return kWhole; });
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto alone =
        model_->Run(std::span(requests).subspan(i, 1), [](int, size_t) { return kWhole; });
    EXPECT_EQ(alone[0], together[i]) << "request " << i;
  }
}

// A sequence that begins on another one's pages: whole ones shared, the last one copied in its
// middle, while the other writes on.
TEST_P(ModelGoldenTest, BeginningOnSharedAndCopiedPagesGivesTheSameBits) {
  const auto requests = model_->AllRequests();
  const auto whole = model_->Run(requests, [](int, size_t) { return kWhole; });
  const auto vocab = static_cast<size_t>(model_->vocab_size());
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::span<const TokenId> tokens = model_->cases()[requests[i].tokens_of].tokens;
    const std::vector<AdapterUse> use = model_->Use(requests[i].adapter);
    for (const size_t known : {tokens.size() / 2, tokens.size() - 1}) {
      const auto shared = static_cast<uint32_t>(known / kGoldenPageTokens);
      const PageList first = model_->KvPages(tokens.size());
      PageList fresh = model_->KvPages(tokens.size());
      std::vector<uint32_t> table(fresh.ids().begin(), fresh.ids().end());
      std::copy_n(first.ids().begin(), shared, table.begin());
      const std::vector<SequenceInput> before = {
          {.tokens = tokens.first(known), .kv_pages = first.ids(), .adapters = use}};
      model_->AllLogits({.sequences = before});
      const kernels::PageCopy copy{.from = first.ids()[shared], .to = table[shared]};
      // The other goes on with other tokens.
      const std::vector<TokenId> other(1, tokens[known] == 0 ? 1 : 0);
      const std::vector<SequenceInput> both = {{.tokens = other,
                                                .first_position = static_cast<int>(known),
                                                .kv_pages = first.ids(),
                                                .adapters = use},
                                               {.tokens = tokens.subspan(known),
                                                .first_position = static_cast<int>(known),
                                                .kv_pages = table,
                                                .adapters = use}};
      const std::vector<float> logits =
          model_->AllLogits({.sequences = both, .page_copies = std::span(&copy, 1)});
      const std::span<const float> rest = std::span(logits).subspan(vocab);
      EXPECT_TRUE(std::ranges::equal(rest, std::span(whole[i]).last(rest.size())))
          << "request " << i << " after " << known << " tokens";
    }
  }
}

// Each case's prompt, then its greedy tokens one at a time, all adapters in one batch, as a server
// would run them. The golden tokens are fed back whatever was sampled, so that a near-tie does not
// derail the rest.
TEST_P(ModelGoldenTest, GreedyDecodingGivesTheGoldenTokens) {
  const std::vector<GoldenCase>& cases = model_->cases();
  SamplingParams greedy;
  greedy.temperature = 0;
  const Sampler sampler(greedy, {}, model_->vocab_size());
  std::vector<PageList> pages;
  std::vector<std::vector<AdapterUse>> uses;
  for (size_t i = 0; i < cases.size(); ++i) {
    pages.push_back(model_->KvPages(cases[i].tokens.size()));
    uses.push_back(model_->Use(static_cast<int>(i)));
  }
  int compared = 0;
  for (int step = 0; step < 8; ++step) {
    std::vector<SequenceInput> sequences;
    for (size_t i = 0; i < cases.size(); ++i) {
      const std::span<const TokenId> tokens = cases[i].tokens;
      const auto prompt = static_cast<size_t>(cases[i].prompt_tokens);
      const size_t begin = step == 0 ? 0 : prompt + static_cast<size_t>(step) - 1;
      const size_t end = prompt + static_cast<size_t>(step);
      sequences.push_back({.tokens = tokens.subspan(begin, end - begin),
                           .first_position = static_cast<int>(begin),
                           .kv_pages = pages[i].ids(),
                           .adapters = uses[i],
                           .sampler = &sampler,
                           .sample_index = step});
    }
    std::vector<SequenceResult> results;
    ASSERT_TRUE(model_->executor().Execute({sequences}, &results).ok());
    for (size_t i = 0; i < cases.size(); ++i) {
      const auto at = static_cast<size_t>(cases[i].prompt_tokens + step);
      const auto vocab = static_cast<size_t>(model_->vocab_size());
      std::vector<float> row(cases[i].logits.begin() + static_cast<ptrdiff_t>((at - 1) * vocab),
                             cases[i].logits.begin() + static_cast<ptrdiff_t>(at * vocab));
      std::nth_element(row.begin(), row.begin() + 1, row.end(), std::greater<>());
      double square = 0;
      for (float x : row) square += x * x;
      // Two logits that are closer than the backend's error may change places.
      if (row[0] - row[1] < 4 * bounds().logits * std::sqrt(square / row.size())) continue;
      EXPECT_EQ(results[i].sample->token, cases[i].tokens[at]) << cases[i].adapter << " at " << at;
      ++compared;
    }
  }
  // With activations in bf16 more of the logits are too close to tell.
  EXPECT_GT(compared, static_cast<int>(cases.size()) * 8 / 2);
}

TEST_P(ModelGoldenTest, ScoresAreTheGoldenLogprobs) {
  const std::vector<GoldenCase>& cases = model_->cases();
  std::vector<PageList> pages;
  std::vector<std::vector<AdapterUse>> uses;
  std::vector<std::vector<TokenId>> targets;
  std::vector<SequenceInput> sequences;
  for (size_t i = 0; i < cases.size(); ++i) {
    pages.push_back(model_->KvPages(cases[i].tokens.size()));
    uses.push_back(model_->Use(static_cast<int>(i)));
    targets.emplace_back(cases[i].tokens.begin() + 1, cases[i].tokens.end()).push_back(-1);
  }
  for (size_t i = 0; i < cases.size(); ++i) {
    sequences.push_back({.tokens = cases[i].tokens,
                         .kv_pages = pages[i].ids(),
                         .adapters = uses[i],
                         .score_targets = targets[i]});
  }
  std::vector<SequenceResult> results;
  ASSERT_TRUE(model_->executor().Execute({sequences}, &results).ok());
  for (size_t i = 0; i < cases.size(); ++i) {
    ASSERT_EQ(results[i].scores.size(), cases[i].tokens.size() - 1);
    const auto vocab = static_cast<size_t>(model_->vocab_size());
    for (size_t t = 0; t + 1 < cases[i].tokens.size(); ++t) {
      const auto row = std::span(cases[i].logits).subspan(t * vocab, vocab);
      double sum = 0, square = 0;
      for (float x : row) {
        sum += std::exp(double{x});
        square += double{x} * x;
      }
      const double expected = row[static_cast<size_t>(targets[i][t])] - std::log(sum);
      EXPECT_NEAR(results[i].scores[t].logprob, expected,
                  8 * bounds().logits * std::sqrt(square / static_cast<double>(vocab)))
          << cases[i].adapter << " token " << t;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ModelGoldenTest,
                         ::testing::Combine(::testing::ValuesIn(GoldenModels()),
                                            ::testing::ValuesIn(GoldenBackends())),
                         [](const auto& param) {
                           const GoldenBackend& backend = std::get<1>(param.param);
                           return fmt::format(
                               "{}_{}{}", std::get<0>(param.param), backend.name,
                               backend.ranks == 1 ? "" : fmt::format("_{}ranks", backend.ranks));
                         });

}  // namespace
}  // namespace lorad
