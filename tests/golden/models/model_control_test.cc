// Negative controls: models and adapters loaded wrongly on purpose. Each must miss even the loosest
// bound that the golden tests allow, or those tests prove nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "model/model_tensors.h"
#include "model/weights.h"
#include "tests/golden/models/golden_backends.h"
#include "tests/golden/models/golden_model.h"

namespace lorad {
namespace {

using ::testing::HasSubstr;

// What no wrong model may come near: the loosest bounds that any golden test allows, twice.
constexpr double kFarLogits = 2 * kBf16Bounds.logits;
constexpr double kFarEffect = 2 * kBf16Bounds.effect;

int Whole(int, size_t) { return 1 << 20; }

// The error of each case's effect when case i runs with adapter `adapter_of(i)`.
std::vector<double> EffectErrors(GoldenModel& model, const std::function<int(size_t)>& adapter_of) {
  std::vector<double> errors;
  for (size_t i = 0; i < model.cases().size(); ++i) {
    const GoldenCase& c = model.cases()[i];
    const std::vector<GoldenModel::Request> requests = {{i, adapter_of(i)}, {i, -1}};
    const auto logits = model.Run(requests, Whole);
    errors.push_back(RelativeError(Difference(logits[0], logits[1]), Difference(c.logits, c.base)));
  }
  return errors;
}

int Own(size_t i) { return static_cast<int>(i); }

class ModelControlTest : public ::testing::TestWithParam<std::string> {
 protected:
  void ExpectNoCasePasses(const Sabotage& sabotage, const std::function<int(size_t)>& adapter_of) {
    GoldenModel model(GetParam(), kernels::NewReferenceBackend(), sabotage);
    const std::vector<double> errors = EffectErrors(model, adapter_of);
    for (size_t i = 0; i < errors.size(); ++i) {
      EXPECT_GT(errors[i], kFarEffect) << model.cases()[i].adapter;
    }
  }
};

TEST_P(ModelControlTest, TheRightAdaptersPass) {
  GoldenModel model(GetParam(), kernels::NewReferenceBackend());
  for (double error : EffectErrors(model, Own)) EXPECT_LE(error, kFp32Bounds.effect);
}

TEST_P(ModelControlTest, AnAdapterThatIsNotApplied) {
  ExpectNoCasePasses({}, [](size_t) { return -1; });
}

TEST_P(ModelControlTest, SwappedAdapters) {
  const size_t count = ReadGoldenCases(GetParam()).size();
  ExpectNoCasePasses({}, [&](size_t i) { return static_cast<int>((i + 1) % count); });
}

TEST_P(ModelControlTest, AWrongScale) {
  for (float factor : {0.5f, 0.75f, 1.25f, 2.0f}) {
    Sabotage sabotage;
    sabotage.factors = [&](auto* factors) {
      for (kernels::LowRankFactors& f : *factors) f.scale *= factor;
    };
    ExpectNoCasePasses(sabotage, Own);
  }
}

// alpha / r where alpha / sqrt(r) is meant, and the other way round.
TEST_P(ModelControlTest, TheOtherRuleForTheScale) {
  for (double power : {0.5, -0.5}) {
    Sabotage sabotage;
    sabotage.factors = [&](auto* factors) {
      for (kernels::LowRankFactors& f : *factors) {
        f.scale *= static_cast<float>(std::pow(static_cast<double>(f.a.rows), power));
      }
    };
    GoldenModel model(GetParam(), kernels::NewReferenceBackend(), sabotage);
    const std::vector<double> errors = EffectErrors(model, Own);
    for (size_t i = 0; i < errors.size(); ++i) {
      if (model.cases()[i].adapter.ends_with("_r1")) continue;  // 1 = sqrt(1)
      EXPECT_GT(errors[i], kFarEffect) << model.cases()[i].adapter;
    }
  }
}

// B read as if it were stored [rank, out].
TEST_P(ModelControlTest, TransposedB) {
  std::deque<std::vector<std::byte>> kept;
  Sabotage sabotage;
  sabotage.factors = [&](auto* factors) {
    for (kernels::LowRankFactors& f : *factors) {
      const size_t width = SizeOf(f.b.dtype);
      const auto rows = static_cast<size_t>(f.b.rows), cols = static_cast<size_t>(f.b.cols);
      const auto* from = static_cast<const std::byte*>(f.b.data);
      std::vector<std::byte>& to = kept.emplace_back(rows * cols * width);
      for (size_t r = 0; r < rows; ++r) {
        for (size_t c = 0; c < cols; ++c) {
          std::copy_n(from + (c * rows + r) * width, width, to.data() + (r * cols + c) * width);
        }
      }
      f.b.data = to.data();
    }
  };
  GoldenModel model(GetParam(), kernels::NewReferenceBackend(), sabotage);
  const std::vector<double> errors = EffectErrors(model, Own);
  for (size_t i = 0; i < errors.size(); ++i) {
    if (model.cases()[i].adapter.ends_with("_r1")) continue;  // a column is its own transpose
    EXPECT_GT(errors[i], kFarEffect) << model.cases()[i].adapter;
  }
}

INSTANTIATE_TEST_SUITE_P(All, ModelControlTest,
                         ::testing::Values("llama", "llama31", "mistral", "qwen2", "qwen3"),
                         [](const auto& param) { return param.param; });

// The base model's error on the longest prompt when its configuration is spoilt.
double BaseError(const std::string& name, const std::function<void(ModelConfig*)>& spoil) {
  Sabotage sabotage;
  sabotage.config = spoil;
  GoldenModel model(name, kernels::NewReferenceBackend(), sabotage);
  size_t longest = 0;
  for (size_t i = 0; i < model.cases().size(); ++i) {
    if (model.cases()[i].tokens.size() > model.cases()[longest].tokens.size()) longest = i;
  }
  const std::vector<GoldenModel::Request> request = {{longest, -1}};
  return RelativeError(model.Run(request, Whole)[0], model.cases()[longest].base);
}

TEST(ArchitectureControlTest, EachArchitecturesOwnFeatureShows) {
  EXPECT_GT(BaseError("mistral", [](ModelConfig* c) { c->sliding_window = 0; }), kFarLogits);
  EXPECT_GT(BaseError("mistral", [](ModelConfig* c) { c->sliding_window += 1; }), kFarLogits);
  EXPECT_GT(BaseError("mistral", [](ModelConfig* c) { c->sliding_window -= 1; }), kFarLogits);
  auto unscaled = [](ModelConfig* c) {
    for (size_t i = 0; i < c->inv_freq.size(); ++i) {
      c->inv_freq[i] = static_cast<float>(
          std::pow(500000.0, -2.0 * static_cast<double>(i) / static_cast<double>(c->head_dim)));
    }
  };
  EXPECT_GT(BaseError("llama31", unscaled), kFarLogits);
  for (const char* name : {"llama", "llama31", "mistral", "qwen2", "qwen3"}) {
    auto no_rope = [](ModelConfig* c) { std::fill(c->inv_freq.begin(), c->inv_freq.end(), 0.0f); };
    EXPECT_GT(BaseError(name, no_rope), kFarLogits) << name;
    EXPECT_LE(BaseError(name, [](ModelConfig*) {}), kFp32Bounds.logits) << name;
  }
}

// What a configuration leaves out but the file has is refused by name, not dropped.
TEST(ArchitectureControlTest, ATensorOfAnotherArchitectureIsRefused) {
  struct Case {
    std::string model, tensor;
    std::function<void(ModelConfig*)> spoil;
  };
  const std::vector<Case> cases = {
      {"qwen2", "self_attn.k_proj.bias", [](ModelConfig* c) { c->qkv_bias = false; }},
      {"qwen3", "self_attn.k_norm.weight", [](ModelConfig* c) { c->qk_norm = false; }},
      {"llama", "model.layers.1.", [](ModelConfig* c) { c->layers = 1; }},
      {"llama", "model.layers.2.", [](ModelConfig* c) { c->layers = 3; }},
      {"llama", "self_attn.q_proj.bias", [](ModelConfig* c) { c->qkv_bias = true; }},
      {"llama31", "lm_head.weight", [](ModelConfig* c) { c->tie_embeddings = false; }},
      {"mistral", "model.embed_tokens.weight", [](ModelConfig* c) { c->vocab_size = 96; }},
      {"mistral", "mlp.gate_proj.weight", [](ModelConfig* c) { c->ffn_size = 88; }},
  };
  const auto backend = kernels::NewReferenceBackend();
  for (const Case& c : cases) {
    auto config = LoadModelConfig(GoldenDir(c.model) / "model");
    const auto tensors = ModelTensors::Open(GoldenDir(c.model) / "model");
    ASSERT_TRUE(config.ok() && tensors.ok());
    EXPECT_TRUE(LoadWeights(*config, *tensors, backend.get()).ok());
    c.spoil(&*config);
    const auto weights = LoadWeights(*config, *tensors, backend.get());
    ASSERT_FALSE(weights.ok()) << c.tensor;
    EXPECT_THAT(std::string(weights.status().message()), HasSubstr(c.tensor));
  }
}

}  // namespace
}  // namespace lorad
