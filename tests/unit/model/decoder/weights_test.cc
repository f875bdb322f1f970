#include "model/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "fmt/format.h"
#include "kernels/backend.h"
#include "kernels/quantise.h"
#include "tests/unit/kernels/forwarding_backend.h"
#include "tests/unit/model/decoder/tiny_model.h"

namespace lorad {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

// Gives ones of any shape; remembers what was asked for, and can spoil one tensor.
class FakeSource final : public TensorSource {
 public:
  absl::StatusOr<kernels::HostMatrix> Matrix(std::string_view name, int64_t rows,
                                             int64_t cols) override {
    auto& values = matrices_[std::string(name)];
    values.assign(static_cast<size_t>(rows * cols), 1.0f);
    if (name == missing) return absl::NotFoundError(fmt::format("{} is missing", name));
    if (name == not_finite) values[5] = std::numeric_limits<float>::infinity();
    asked.push_back(fmt::format("{} {}x{}", name, rows, cols));
    ++held_;
    most_held = std::max(most_held, held_);
    return kernels::HostMatrix{kernels::DType::kF32, values.data(), rows, cols};
  }

  absl::StatusOr<std::vector<float>> Vector(std::string_view name, int64_t size) override {
    asked.push_back(fmt::format("{} {}", name, size));
    std::vector<float> values(static_cast<size_t>(size), 1.0f);
    if (name == not_finite) values[2] = std::nanf("");
    return values;
  }

  void Release() override {
    held_ = 0;
    matrices_.clear();
  }

  std::string missing, not_finite;
  std::vector<std::string> asked;
  int most_held = 0;

 private:
  int held_ = 0;
  std::map<std::string, std::vector<float>> matrices_;
};

TEST(BuildWeightsTest, AsksForEveryTensorOfALlama) {
  const auto backend = kernels::NewReferenceBackend();
  FakeSource source;
  const auto weights = BuildWeights(TinyConfig(), &source, backend.get());
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_THAT(source.asked, Contains("model.embed_tokens.weight 61x32"));
  EXPECT_THAT(source.asked, Contains("model.layers.1.self_attn.q_proj.weight 32x32"));
  EXPECT_THAT(source.asked, Contains("model.layers.1.self_attn.v_proj.weight 16x32"));
  EXPECT_THAT(source.asked, Contains("model.layers.0.mlp.down_proj.weight 32x48"));
  EXPECT_THAT(source.asked, Contains("model.layers.0.post_attention_layernorm.weight 32"));
  EXPECT_THAT(source.asked, Contains("lm_head.weight 61x32"));
  EXPECT_THAT(source.asked, Not(Contains(HasSubstr("bias"))));
  EXPECT_EQ(source.asked.size(), 2u * (7 + 2) + 3);
  EXPECT_LE(source.most_held, 3) << "no more than one stack is held unpacked";
  EXPECT_EQ((*weights)->layers[0].qkv->rows(), 64);
  EXPECT_EQ((*weights)->layers[0].gate_up->rows(), 96);
  EXPECT_NE(&(*weights)->head(), (*weights)->embedding.get());
  EXPECT_EQ((*weights)->bytes(), 4 * CountWeights(TinyConfig()));
}

TEST(BuildWeightsTest, AsksForWhatTheArchitectureAdds) {
  ModelConfig config = TinyConfig();
  config.qkv_bias = config.output_bias = config.mlp_bias = config.qk_norm = true;
  config.tie_embeddings = true;
  const auto backend = kernels::NewReferenceBackend();
  FakeSource source;
  const auto weights = BuildWeights(config, &source, backend.get());
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_THAT(source.asked, Contains("model.layers.0.self_attn.k_proj.bias 16"));
  EXPECT_THAT(source.asked, Contains("model.layers.0.self_attn.o_proj.bias 32"));
  EXPECT_THAT(source.asked, Contains("model.layers.0.mlp.up_proj.bias 48"));
  EXPECT_THAT(source.asked, Contains("model.layers.0.self_attn.q_norm.weight 8"));
  EXPECT_THAT(source.asked, Not(Contains(HasSubstr("lm_head"))));
  EXPECT_EQ(&(*weights)->head(), (*weights)->embedding.get());
}

// Remembers the format of each matrix.
class PackRecorder final : public kernels::ForwardingBackend {
 public:
  std::unique_ptr<kernels::Matrix> Pack(std::span<const kernels::HostMatrix> stacked,
                                        std::span<const float> bias,
                                        kernels::WeightFormat format) override {
    formats.push_back(format);
    return inner().Pack(stacked, bias, format);
  }
  bool Supports(kernels::WeightFormat) const override { return true; }
  std::vector<kernels::WeightFormat> formats;
};

TEST(BuildWeightsTest, TheFormatIsThatOfTheLayers) {
  using kernels::WeightFormat;
  for (const bool tied : {false, true}) {
    ModelConfig config = TinyConfig();
    config.tie_embeddings = tied;
    for (const WeightFormat format : kernels::kWeightFormats) {
      PackRecorder backend;
      FakeSource source;
      ASSERT_TRUE(BuildWeights(config, &source, &backend, {.format = format}).ok());
      std::vector<WeightFormat> want = {WeightFormat::kBf16};  // the embedding
      want.insert(want.end(), 2 * 4, format);
      if (!tied) {
        want.push_back(format == WeightFormat::kInt8 ? WeightFormat::kInt8 : WeightFormat::kBf16);
      }
      EXPECT_EQ(backend.formats, want) << Name(format);
    }
    // A shard has a part of its own of a tied embedding, like the whole one.
    PackRecorder backend;
    FakeSource source;
    ASSERT_TRUE(
        BuildWeights(config, &source, &backend, {.format = WeightFormat::kInt8, .shard = {0, 2}})
            .ok());
    EXPECT_EQ(backend.formats.back(), tied ? WeightFormat::kBf16 : WeightFormat::kInt8);
  }
}

TEST(BuildWeightsTest, ReportsProgressToTheEnd) {
  const auto backend = kernels::NewReferenceBackend();
  FakeSource source;
  std::vector<std::pair<size_t, size_t>> seen;
  WeightOptions options;
  options.progress = [&](size_t done, size_t total) { seen.emplace_back(done, total); };
  ASSERT_TRUE(BuildWeights(TinyConfig(), &source, backend.get(), options).ok());
  ASSERT_EQ(seen.size(), 2u * 4 + 2);
  for (size_t i = 1; i < seen.size(); ++i) EXPECT_GT(seen[i].first, seen[i - 1].first);
  EXPECT_EQ(seen.back().first, seen.back().second);
}

TEST(BuildWeightsTest, NamesAMissingTensor) {
  const auto backend = kernels::NewReferenceBackend();
  FakeSource source;
  source.missing = "model.layers.1.mlp.up_proj.weight";
  const auto weights = BuildWeights(TinyConfig(), &source, backend.get());
  EXPECT_EQ(weights.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(weights.status().message()), HasSubstr(source.missing));
}

TEST(BuildWeightsTest, FindsValuesThatAreNotFiniteIfAsked) {
  const auto backend = kernels::NewReferenceBackend();
  for (const char* name : {"model.layers.1.mlp.up_proj.weight", "model.norm.weight"}) {
    FakeSource source;
    source.not_finite = name;
    EXPECT_TRUE(BuildWeights(TinyConfig(), &source, backend.get()).ok());
    const auto checked = BuildWeights(TinyConfig(), &source, backend.get(), {.check_finite = true});
    EXPECT_EQ(checked.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(checked.status().message()), HasSubstr(name));
  }
}

TEST(DummyWeightsTest, DependOnTheSeedAlone) {
  std::vector<std::vector<float>> logits;
  for (uint64_t seed : {1u, 1u, 2u}) {
    const auto backend = kernels::NewReferenceBackend();
    auto weights = MakeDummyWeights(TinyConfig(), seed, backend.get());
    ASSERT_TRUE(weights.ok());
    const kernels::KvGeometry geometry = KvGeometryOf(TinyConfig(), 16);
    const size_t page_bytes = backend->KvPageBytes(geometry);
    const auto pool = backend->Allocate(page_bytes);
    backend->SetPool({(*pool)->data(), page_bytes}, geometry);
    const auto executor = std::make_unique<DecoderExecutor>(
        TinyConfig(), *std::move(weights), backend.get(), DecoderExecutorOptions{});
    const std::vector<TokenId> tokens = {5, 9, 60};
    const std::vector<uint32_t> pages = {0};
    const SequenceInput sequence{.tokens = tokens, .kv_pages = pages};
    logits.push_back(executor->AllLogits({std::span(&sequence, 1)}));
  }
  EXPECT_EQ(logits[0], logits[1]);
  EXPECT_NE(logits[0], logits[2]);
  double square = 0;
  for (float x : logits[0]) square += x * x;
  // Normalised hidden states times rows of unit variance: logits of about unit variance.
  EXPECT_NEAR(square / static_cast<double>(logits[0].size()), 1.0, 0.5);
}

}  // namespace
}  // namespace lorad
