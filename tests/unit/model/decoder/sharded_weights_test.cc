// The weights of the ranks of a tensor-parallel model, put together again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "kernels/reference/storage.h"
#include "model/weights.h"
#include "tests/unit/model/decoder/tiny_model.h"

namespace lorad {
namespace {

using ::testing::HasSubstr;

// No two numbers of any tensors are equal.
class CountingSource final : public TensorSource {
 public:
  absl::StatusOr<kernels::HostMatrix> Matrix(std::string_view name, int64_t rows,
                                             int64_t cols) override {
    const std::vector<float>& values = Numbers(name, rows * cols);
    return kernels::HostMatrix{kernels::DType::kF32, values.data(), rows, cols};
  }
  absl::StatusOr<std::vector<float>> Vector(std::string_view name, int64_t size) override {
    return Numbers(name, size);
  }
  std::vector<float>& Numbers(std::string_view name, int64_t count) {
    std::vector<float>& values = tensors_[std::string(name)];
    while (static_cast<int64_t>(values.size()) < count) {
      values.push_back(static_cast<float>(next_++));
    }
    return values;
  }

 private:
  std::map<std::string, std::vector<float>> tensors_;
  int next_ = 1;
};

using Rows = std::vector<std::vector<float>>;

// Rows of a packed matrix, each with its bias at the end.
Rows RowsOf(const kernels::Matrix& matrix) {
  const kernels::reference::F32Matrix& m = kernels::reference::Of(matrix);
  Rows rows;
  for (int i = 0; i < m.rows(); ++i) {
    rows.emplace_back(m.Row(i).begin(), m.Row(i).end());
    rows.back().push_back(m.Bias(i));
  }
  return rows;
}

Rows Some(const Rows& rows, const Share& share) {
  return Rows(rows.begin() + share.begin, rows.begin() + share.begin + share.count);
}

Rows Stack(const std::vector<Rows>& parts) {
  Rows all;
  for (const Rows& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

// The share of the columns; the bias is the first rank's.
Rows Columns(const Rows& rows, const Share& share, bool with_bias) {
  Rows cut;
  for (const std::vector<float>& row : rows) {
    const auto begin = row.begin() + share.begin;
    cut.emplace_back(begin, begin + share.count).push_back(with_bias ? row.back() : 0.0f);
  }
  return cut;
}

class ShardedWeightsTest : public ::testing::Test {
 protected:
  ShardedWeightsTest() {
    config_.qkv_bias = config_.output_bias = config_.mlp_bias = config_.qk_norm = true;
  }

  std::unique_ptr<ModelWeights> Build(const Shard& shard) {
    auto weights = BuildWeights(config_, &source_, backend_.get(), {.shard = shard});
    EXPECT_TRUE(weights.ok()) << weights.status();
    return *std::move(weights);
  }

  void ExpectShare(const ModelWeights& whole, const Shard& shard) {
    const auto own = Build(shard);
    const Share q = QShare(config_, shard), kv = KvShare(config_, shard);
    const Share ffn = FfnShare(config_, shard);
    const int64_t q_size = config_.q_size(), kv_size = config_.kv_size();
    for (size_t i = 0; i < whole.layers.size(); ++i) {
      const LayerWeights &all = whole.layers[i], &mine = own->layers[i];
      const Rows qkv = RowsOf(*all.qkv), gate_up = RowsOf(*all.gate_up);
      EXPECT_EQ(RowsOf(*mine.qkv), Stack({Some(qkv, q), Some(qkv, {q_size + kv.begin, kv.count}),
                                          Some(qkv, {q_size + kv_size + kv.begin, kv.count})}));
      EXPECT_EQ(
          RowsOf(*mine.gate_up),
          Stack({Some(gate_up, ffn), Some(gate_up, {config_.ffn_size + ffn.begin, ffn.count})}));
      EXPECT_EQ(RowsOf(*mine.output), Columns(RowsOf(*all.output), q, shard.rank == 0));
      EXPECT_EQ(RowsOf(*mine.down), Columns(RowsOf(*all.down), ffn, shard.rank == 0));
      EXPECT_EQ(kernels::reference::Of(*mine.k_norm)[3], kernels::reference::Of(*all.k_norm)[3]);
    }
    EXPECT_EQ(RowsOf(*own->embedding), RowsOf(*whole.embedding));
    Rows head = Some(RowsOf(whole.head()), HeadShare(config_, shard));
    head.resize(static_cast<size_t>(HeadRows(config_, shard.size)),
                std::vector<float>(static_cast<size_t>(config_.hidden_size) + 1, 0.0f));
    EXPECT_EQ(RowsOf(own->head()), head);
  }

  ModelConfig config_ = TinyConfig();
  CountingSource source_;
  const std::unique_ptr<kernels::Backend> backend_ = kernels::NewReferenceBackend();
};

TEST_F(ShardedWeightsTest, EachRankHasItsShareOfEveryTensor) {
  const auto whole = Build({});
  for (const int size : {2, 4}) {
    for (int rank = 0; rank < size; ++rank) ExpectShare(*whole, {rank, size});
  }
}

TEST_F(ShardedWeightsTest, ATiedHeadIsPackedByItself) {
  config_.tie_embeddings = true;
  const auto whole = Build({});
  EXPECT_EQ(whole->own_head, nullptr);
  for (int rank = 0; rank < 4; ++rank) ExpectShare(*whole, {rank, 4});
}

TEST_F(ShardedWeightsTest, ARankWithoutTokensHasAHeadOfZeros) {
  config_.vocab_size = 5;
  ExpectShare(*Build({}), {3, 4});
}

TEST_F(ShardedWeightsTest, CountsWhatItPacks) {
  config_.qkv_bias = config_.output_bias = config_.mlp_bias = false;
  for (const bool tied : {false, true}) {
    config_.tie_embeddings = tied;
    for (const Shard shard : {Shard{0, 1}, Shard{1, 2}, Shard{3, 4}}) {
      EXPECT_EQ(Build(shard)->bytes(), sizeof(float) * CountWeights(config_, shard));
      size_t done = 0, total = 1;
      const auto built = BuildWeights(config_, &source_, backend_.get(),
                                      {.shard = shard, .progress = [&](size_t d, size_t t) {
                                         done = d;
                                         total = t;
                                       }});
      EXPECT_TRUE(built.ok());
      EXPECT_EQ(done, total);
    }
  }
}

TEST_F(ShardedWeightsTest, WhatIsNotFiniteIsNamedByItsPlaceInTheWholeTensor) {
  const std::string name = "model.layers.1.mlp.down_proj.weight";
  source_.Numbers(name, int64_t{config_.hidden_size} *
                            config_.ffn_size)[static_cast<size_t>(2 * config_.ffn_size + 30)] =
      std::numeric_limits<float>::infinity();
  const auto build = [&](int rank) {
    return BuildWeights(config_, &source_, backend_.get(),
                        {.check_finite = true, .shard = {rank, 2}})
        .status();
  };
  EXPECT_TRUE(build(0).ok()) << "it is not this rank's: " << build(0);
  EXPECT_THAT(std::string(build(1).message()), HasSubstr(name + " is not finite at [2, 30]"));
}

}  // namespace
}  // namespace lorad
