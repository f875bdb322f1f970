#include "model/decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "model/weights.h"
#include "tests/unit/model/decoder/tiny_model.h"

namespace lorad {
namespace {

using Numbers = std::vector<double>;

// Weights that the test can read back.
class KnownSource final : public TensorSource {
 public:
  absl::StatusOr<kernels::HostMatrix> Matrix(std::string_view name, int64_t rows,
                                             int64_t cols) override {
    const std::vector<float>& values = Make(name, rows * cols, 0.3f, 0.0f);
    return kernels::HostMatrix{kernels::DType::kF32, values.data(), rows, cols};
  }
  absl::StatusOr<std::vector<float>> Vector(std::string_view name, int64_t size) override {
    return Make(name, size, 0.5f, 1.0f);
  }

  // The named matrix times x.
  Numbers Times(const std::string& name, const Numbers& x) const {
    const std::vector<float>& w = tensors_.at(name);
    Numbers y(w.size() / x.size());
    for (size_t i = 0; i < y.size(); ++i) {
      for (size_t j = 0; j < x.size(); ++j) y[i] += double{w[i * x.size() + j]} * x[j];
    }
    return y;
  }
  const std::vector<float>& At(const std::string& name) const { return tensors_.at(name); }

 private:
  const std::vector<float>& Make(std::string_view name, int64_t count, float spread, float center) {
    std::vector<float>& values = tensors_[std::string(name)];
    for (int64_t i = 0; i < count; ++i) {
      phase_ = std::fmod(phase_ + 2.399963, 6.283185307);
      values.push_back(center +
                       spread * static_cast<float>(std::sin(phase_ * 3 + phase_ * phase_)));
    }
    return values;
  }

  std::map<std::string, std::vector<float>> tensors_;
  double phase_ = 0;
};

Numbers Norm(const Numbers& x, const std::vector<float>& w, double eps) {
  double square = 0;
  for (double v : x) square += v * v;
  const double inverse = 1 / std::sqrt(square / static_cast<double>(x.size()) + eps);
  Numbers y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * inverse * w[i];
  return y;
}

void Add(const Numbers& y, Numbers* x) {
  for (size_t i = 0; i < y.size(); ++i) (*x)[i] += y[i];
}

// The first token of a sequence sees only itself: attention gives its own values, and no rotation
// or query matters.
Numbers LogitsOfFirstToken(const ModelConfig& c, const KnownSource& w, int token) {
  const std::vector<float>& table = w.At("model.embed_tokens.weight");
  const auto row = table.begin() + token * c.hidden_size;
  Numbers x(row, row + c.hidden_size);
  for (int layer = 0; layer < c.layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const Numbers in = Norm(x, w.At(prefix + "input_layernorm.weight"), c.rms_norm_eps);
    const Numbers v = w.Times(prefix + "self_attn.v_proj.weight", in);
    Numbers heads;  // each kv head serves heads / kv_heads query heads
    for (int h = 0; h < c.heads; ++h) {
      const auto from = v.begin() + h / (c.heads / c.kv_heads) * c.head_dim;
      heads.insert(heads.end(), from, from + c.head_dim);
    }
    Add(w.Times(prefix + "self_attn.o_proj.weight", heads), &x);
    const Numbers mid = Norm(x, w.At(prefix + "post_attention_layernorm.weight"), c.rms_norm_eps);
    Numbers inner = w.Times(prefix + "mlp.gate_proj.weight", mid);
    const Numbers up = w.Times(prefix + "mlp.up_proj.weight", mid);
    for (size_t i = 0; i < inner.size(); ++i) inner[i] *= up[i] / (1 + std::exp(-inner[i]));
    Add(w.Times(prefix + "mlp.down_proj.weight", inner), &x);
  }
  return w.Times("lm_head.weight", Norm(x, w.At("model.norm.weight"), c.rms_norm_eps));
}

class DecoderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto weights = BuildWeights(config_, &source_, backend_.get());
    ASSERT_TRUE(weights.ok());
    weights_ = std::move(*weights);
    const kernels::KvGeometry geometry = KvGeometryOf(config_, 16);
    const size_t page_bytes = backend_->KvPageBytes(geometry);
    auto pool = backend_->Allocate(page_bytes * pages_.size());
    ASSERT_TRUE(pool.ok());
    pool_ = std::move(*pool);
    backend_->SetPool({pool_->data(), page_bytes}, geometry);
    decoder_ = std::make_unique<Decoder>(config_, *weights_, backend_.get(), nullptr, 8, 4);
  }

  // Several sequences of one token each.
  void ForwardFirstTokens(const std::vector<int32_t>& tokens) {
    std::vector<kernels::SequenceRows> sequences;
    for (size_t i = 0; i < tokens.size(); ++i) {
      const int row = static_cast<int>(i);
      sequences.push_back({row, row + 1, 0, std::span(pages_).subspan(i, 1)});
    }
    const std::vector<int32_t> positions(tokens.size(), 0);
    decoder_->Forward({tokens, positions, sequences, {}});
  }

  std::vector<float> Row(int i) {
    const std::span<const float> row = decoder_->LogitRow(i);
    return {row.begin(), row.end()};
  }

  const ModelConfig config_ = TinyConfig();
  const std::unique_ptr<kernels::Backend> backend_ = kernels::NewReferenceBackend();
  KnownSource source_;
  std::unique_ptr<ModelWeights> weights_;
  const std::vector<uint32_t> pages_ = {5, 2, 7, 0, 1, 3, 6, 4};
  std::unique_ptr<kernels::Buffer> pool_;
  std::unique_ptr<Decoder> decoder_;
};

TEST_F(DecoderTest, ComputesTheLlamaEquations) {
  const std::vector<int32_t> tokens = {3, 60, 0};
  ForwardFirstTokens(tokens);
  decoder_->Logits(std::vector<int32_t>{0, 1, 2}, {});
  for (int i = 0; i < 3; ++i) {
    const Numbers expected = LogitsOfFirstToken(config_, source_, tokens[static_cast<size_t>(i)]);
    const std::vector<float> logits = Row(i);
    ASSERT_EQ(logits.size(), expected.size());
    for (size_t j = 0; j < logits.size(); ++j) EXPECT_NEAR(logits[j], expected[j], 1e-4) << j;
  }
}

TEST_F(DecoderTest, GivesTheLogitsOfAnyRowsInAnyOrder) {
  ForwardFirstTokens({9, 8, 7, 6, 5});
  decoder_->Logits(std::vector<int32_t>{0, 1, 2, 3}, {});
  const std::vector<std::vector<float>> rows = {Row(0), Row(1), Row(2), Row(3)};
  decoder_->Logits(std::vector<int32_t>{3, 1, 3}, {});
  EXPECT_EQ(Row(0), rows[3]);
  EXPECT_EQ(Row(1), rows[1]);
  EXPECT_EQ(Row(2), rows[3]);
  EXPECT_NE(rows[1], rows[3]);
}

// Segments of Logits() count the gathered rows, and only the head's modules act there.
TEST_F(DecoderTest, TheHeadsAdapterActsOnGatheredRows) {
  std::vector<float> a(static_cast<size_t>(config_.hidden_size), 0.5f);
  std::vector<float> b(static_cast<size_t>(config_.vocab_size), 2.0f);
  const std::vector<kernels::LowRankFactors> factors = {
      {LmHeadSite(config_),
       0,
       1.0f,
       {kernels::DType::kF32, a.data(), 1, config_.hidden_size},
       {kernels::DType::kF32, b.data(), config_.vocab_size, 1}}};
  const size_t page_bytes = backend_->KvPageBytes(KvGeometryOf(config_, 16));
  const kernels::AdapterLayout layout =
      backend_->PlanAdapter(factors, SiteCount(config_), page_bytes);
  ASSERT_EQ(layout.pages, 1u);
  const std::vector<uint32_t> image = {pages_[7]};
  backend_->PackAdapter(layout, factors, {pool_->data(), page_bytes}, image);

  ForwardFirstTokens({9, 8, 7});
  decoder_->Logits(std::vector<int32_t>{1, 2}, {});
  const std::vector<std::vector<float>> plain = {Row(0), Row(1)};
  const std::vector<kernels::AdapterSegment> second = {{1, 2, &layout, image, 1.0f}};
  decoder_->Logits(std::vector<int32_t>{1, 2}, second);
  EXPECT_EQ(Row(0), plain[0]);
  // Every logit moves by the same amount: the factors are constant.
  const std::vector<float> moved = Row(1);
  const float delta = moved[0] - plain[1][0];
  EXPECT_GT(std::abs(delta), 0.01f);
  for (size_t j = 0; j < moved.size(); ++j) EXPECT_NEAR(moved[j] - plain[1][j], delta, 1e-4);
}

TEST_F(DecoderTest, ChecksItsLimits) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(decoder_->Forward({}), "batch.rows");
  const std::vector<int32_t> nine(9, 1);
  EXPECT_DEATH(decoder_->Forward({nine, nine, {}, {}}), "max_rows");
  ForwardFirstTokens({1});
  EXPECT_DEATH(decoder_->Logits({}, {}), "count");
  EXPECT_DEATH(decoder_->Logits(std::vector<int32_t>(5, 0), {}), "max_logit_rows");
}

TEST(DecoderMemoryTest, CountsEveryActivation) {
  const ModelConfig c = TinyConfig();
  const size_t row = static_cast<size_t>(2 * c.hidden_size + c.qkv_size() + c.head_dim +
                                         c.q_size() + 3 * c.ffn_size);
  const size_t logit_row = static_cast<size_t>(2 * c.hidden_size + c.vocab_size);
  EXPECT_EQ(Decoder::CountActivations(c, 1, 10, 3), 10 * row + 3 * logit_row);
}

}  // namespace
}  // namespace lorad
