// Shares of models and adapters: put together again they are the whole, bit by bit.
#include "model/sharded_factors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "memory/base/check.h"
#include "model/sites.h"

namespace lorad {
namespace {

using kernels::DType;
using kernels::HostMatrix;
using kernels::LowRankFactors;
using ::testing::HasSubstr;

ModelConfig Model(int heads, int kv_heads, int ffn, int vocab) {
  ModelConfig model;
  model.vocab_size = vocab;
  model.hidden_size = 24;
  model.layers = 3;
  model.heads = heads;
  model.kv_heads = kv_heads;
  model.head_dim = 4;
  model.ffn_size = ffn;
  return model;
}

TEST(CheckShardsTest, NamesWhatCannotBeSplit) {
  const ModelConfig model = Model(12, 6, 18, 7);
  for (const int ranks : {1, 2, 3, 6}) EXPECT_TRUE(CheckShards(model, ranks).ok()) << ranks;
  const auto why = [&](const ModelConfig& m, int ranks) {
    const absl::Status status = CheckShards(m, ranks);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    return std::string(status.message());
  };
  EXPECT_THAT(why(model, 5), HasSubstr("12 attention heads cannot be split over 5 ranks"));
  EXPECT_THAT(why(model, 4), HasSubstr("6 key/value heads"));
  EXPECT_THAT(why(model, 12), HasSubstr("18 feed-forward neurons"));
  EXPECT_THAT(why(model, 0), HasSubstr("0 ranks"));
}

TEST(ShardTest, KeyValueHeadsAreRepeatedOnceTheyAreFew) {
  const ModelConfig model = Model(8, 2, 16, 7);
  EXPECT_EQ(ShardOf(model, {1, 2}).kv_heads, 1);
  EXPECT_EQ(ShardOf(model, {1, 2}).heads, 4);
  EXPECT_EQ(ShardOf(model, {3, 8}).kv_heads, 1);
  EXPECT_EQ(ShardOf(model, {3, 8}).ffn_size, 2);
  // Query heads 4 .. 7 read key/value head 1, whichever rank they are on.
  for (int rank = 0; rank < 8; ++rank) {
    EXPECT_EQ(KvShare(model, {rank, 8}).begin, rank < 4 ? 0 : 4) << rank;
    EXPECT_EQ(KvShare(model, {rank, 8}).count, 4);
    EXPECT_EQ(QShare(model, {rank, 8}).begin, 4 * rank);
  }
}

TEST(ShardTest, PartsOfTheHeadAreEqualButForTheirTokens) {
  const ModelConfig model = Model(8, 2, 16, 5);
  EXPECT_EQ(HeadRows(model, 1), 5);
  EXPECT_EQ(HeadRows(model, 4), 2);
  const std::vector<std::pair<int64_t, int64_t>> expected = {{0, 2}, {2, 2}, {4, 1}, {5, 0}};
  for (int rank = 0; rank < 4; ++rank) {
    const Share share = HeadShare(model, {rank, 4});
    EXPECT_EQ(std::pair(share.begin, share.count), expected[static_cast<size_t>(rank)]);
  }
}

// An adapter of mixed ranks and types on some of a model's modules; in the first layer one module
// is of all of q, k, v.
class RandomAdapter {
 public:
  RandomAdapter(const ModelConfig& model, unsigned seed) : random_(seed) {
    for (int layer = 0; layer < model.layers; ++layer) {
      for (const Projection& p : Projections(model)) {
        if (random_() % 4 == 0 || (layer == 0 && p.site == LayerSite::kQkv)) continue;
        Add(SiteIndex(layer, p.site), p.out_begin, p.out_cols, p.in_cols);
      }
    }
    Add(SiteIndex(0, LayerSite::kQkv), 0, model.qkv_size(), model.hidden_size);
    Add(LmHeadSite(model), 0, model.vocab_size, model.hidden_size);
  }

  const std::vector<LowRankFactors>& factors() const { return factors_; }
  // The module that adds to this output of a site.
  const LowRankFactors& At(uint32_t site, int64_t output) const {
    const auto at = std::ranges::find_if(factors_, [&](const LowRankFactors& f) {
      return f.site == site && output >= f.out_begin && output < f.out_begin + f.b.rows;
    });
    LORAD_CHECK(at != factors_.end());
    return *at;
  }

 private:
  void Add(uint32_t site, int out_begin, int out_cols, int in_cols) {
    const auto rank = static_cast<int64_t>(1 + random_() % 9);
    const auto dtype = static_cast<DType>(random_() % 3);
    const auto scale = static_cast<float>(random_() % 100);
    factors_.push_back({site, static_cast<uint32_t>(out_begin), scale, Matrix(dtype, rank, in_cols),
                        Matrix(dtype, out_cols, rank)});
  }

  HostMatrix Matrix(DType dtype, int64_t rows, int64_t cols) {
    auto& data = data_.emplace_back(static_cast<size_t>(rows * cols) * SizeOf(dtype));
    for (std::byte& b : data) b = static_cast<std::byte>(random_());
    return {dtype, data.data(), rows, cols};
  }

  std::mt19937 random_;
  std::deque<std::vector<std::byte>> data_;
  std::vector<LowRankFactors> factors_;
};

std::string Bytes(const HostMatrix& m) {
  return std::string(static_cast<const char*>(m.data),
                     static_cast<size_t>(m.rows * m.cols) * SizeOf(m.dtype));
}

std::string Row(const HostMatrix& m, int64_t row) {
  const size_t bytes = static_cast<size_t>(m.cols) * SizeOf(m.dtype);
  return Bytes(m).substr(static_cast<size_t>(row) * bytes, bytes);
}

// The output of the whole site that output `col` of rank `rank` is.
int64_t WholeOutput(const ModelConfig& model, const Shard& shard, uint32_t site, int64_t col) {
  if (site == LmHeadSite(model)) return HeadShare(model, shard).begin + col;
  const auto all = Projections(model), own = Projections(ShardOf(model, shard));
  for (size_t i = 0; i < own.size(); ++i) {
    if (static_cast<uint32_t>(own[i].site) != site % kSitesPerLayer) continue;
    if (col < own[i].out_begin || col >= own[i].out_begin + own[i].out_cols) continue;
    const int64_t repeats = int64_t{own[i].out_cols} * shard.size / all[i].out_cols;
    return all[i].out_begin + int64_t{shard.rank / static_cast<int>(repeats)} * own[i].out_cols +
           col - own[i].out_begin;
  }
  return -1;
}

bool SplitsInputs(const ModelConfig& model, uint32_t site) {
  const auto kind = static_cast<LayerSite>(site % kSitesPerLayer);
  return site != LmHeadSite(model) && (kind == LayerSite::kOutput || kind == LayerSite::kDown);
}

class ShardedFactorsTest : public ::testing::TestWithParam<std::tuple<int, unsigned>> {};

TEST_P(ShardedFactorsTest, TogetherTheyAreTheWhole) {
  const auto [ranks, seed] = GetParam();
  const ModelConfig model = Model(8, seed % 2 == 0 ? 4 : 8, 40, 30 + static_cast<int>(seed));
  const RandomAdapter adapter(model, seed);
  // Of each module that splits outputs, the rows of B by output; of the others, A by rank.
  std::map<std::pair<uint32_t, int64_t>, std::string> rows_of_b;
  std::map<uint32_t, std::vector<std::string>> columns_of_a;
  for (int rank = 0; rank < ranks; ++rank) {
    const Shard shard = {rank, ranks};
    ShardedFactors made(adapter.factors(), model, shard);
    const ShardedFactors own = std::move(made);
    const ModelConfig part = ShardOf(model, shard);
    for (const LowRankFactors& f : own.factors()) {
      ASSERT_EQ(f.a.rows, f.b.cols);
      const bool inputs = SplitsInputs(model, f.site);
      const int64_t first = inputs ? f.out_begin : WholeOutput(model, shard, f.site, f.out_begin);
      const LowRankFactors& whole = adapter.At(f.site, first);
      EXPECT_EQ(f.scale, whole.scale);
      EXPECT_EQ(f.a.dtype, whole.a.dtype);
      EXPECT_EQ(f.b.dtype, whole.b.dtype);
      EXPECT_EQ(Bytes(inputs ? f.b : f.a), Bytes(inputs ? whole.b : whole.a));
      if (inputs) {
        EXPECT_EQ(f.out_begin, whole.out_begin);
        EXPECT_EQ(f.a.cols, f.site % kSitesPerLayer == 1 ? part.q_size() : part.ffn_size);
        std::vector<std::string>& parts = columns_of_a[f.site];
        parts.resize(static_cast<size_t>(f.a.rows));
        for (int64_t r = 0; r < f.a.rows; ++r) parts[static_cast<size_t>(r)] += Row(f.a, r);
        continue;
      }
      for (int64_t row = 0; row < f.b.rows; ++row) {
        const int64_t output = WholeOutput(model, shard, f.site, f.out_begin + row);
        ASSERT_GE(output, 0);
        const auto [at, added] = rows_of_b.insert({{f.site, output}, Row(f.b, row)});
        EXPECT_EQ(at->second, Row(f.b, row)) << "ranks differ";
      }
    }
  }
  size_t expected_rows = 0;
  for (const LowRankFactors& f : adapter.factors()) {
    if (SplitsInputs(model, f.site)) {
      for (int64_t r = 0; r < f.a.rows; ++r) {
        EXPECT_EQ(columns_of_a[f.site].at(static_cast<size_t>(r)), Row(f.a, r));
      }
      continue;
    }
    for (int64_t row = 0; row < f.b.rows; ++row) {
      EXPECT_EQ(rows_of_b[std::pair(f.site, f.out_begin + row)], Row(f.b, row));
      ++expected_rows;
    }
  }
  EXPECT_EQ(rows_of_b.size(), expected_rows);
}

INSTANTIATE_TEST_SUITE_P(Random, ShardedFactorsTest,
                         ::testing::Combine(::testing::Values(1, 2, 4, 8),
                                            ::testing::Range(0u, 6u)));

TEST(ShardedFactorsShapesTest, NeedNoData) {
  const ModelConfig model = Model(8, 4, 40, 3);
  RandomAdapter adapter(model, 1);
  std::vector<LowRankFactors> shapes = adapter.factors();
  for (LowRankFactors& f : shapes) f.a.data = f.b.data = nullptr;
  for (int rank = 0; rank < 4; ++rank) {
    const ShardedFactors with(adapter.factors(), model, {rank, 4});
    const ShardedFactors without(shapes, model, {rank, 4});
    ASSERT_EQ(with.factors().size(), without.factors().size());
    for (size_t i = 0; i < with.factors().size(); ++i) {
      const LowRankFactors &a = with.factors()[i], &b = without.factors()[i];
      EXPECT_EQ(std::tuple(a.site, a.out_begin, a.a.rows, a.a.cols, a.b.rows, a.b.cols),
                std::tuple(b.site, b.out_begin, b.a.rows, b.a.cols, b.b.rows, b.b.cols));
      EXPECT_EQ(b.a.data, nullptr);
      EXPECT_EQ(b.b.data, nullptr);
    }
  }
  // Three tokens over four ranks: the last one has none, and no part of the head's adapter.
  const ShardedFactors last(shapes, model, {3, 4});
  for (const LowRankFactors& f : last.factors()) EXPECT_NE(f.site, LmHeadSite(model));
}

}  // namespace
}  // namespace lorad
