// Tokens drawn on the (emulated) device against the host's Sampler, and against the definition in
// double where the two may differ.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cuda/sample_ops.h"
#include "kernels/sample_stream.h"
#include "model/sampling.h"
#include "tests/emulator/launcher.h"
#include "tests/unit/kernels/cuda/dense_case.h"

namespace lorad::kernels::cuda {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

using Logits = std::vector<float>;  // of one row

std::vector<int32_t> Draw(const std::vector<Logits>& rows, const std::vector<SampleRow>& wishes,
                          uint64_t order_seed = 1) {
  const int vocab = int(rows[0].size());
  const int stride = PaddedColumns(vocab);
  const Memory memory(rows.size() * size_t(stride) * sizeof(float));
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy(rows[i].begin(), rows[i].end(),
              reinterpret_cast<float*>(memory.data()) + i * size_t(stride));
  }
  const Memory wished(wishes.data(), wishes.size() * sizeof(SampleRow));
  std::vector<int32_t> tokens(wishes.size(), -7);
  emulator::EmulatedLauncher launch(order_seed);
  LaunchSample(launch, {},
               {.logits = {memory.data(), vocab, stride, true},
                .vocab = vocab,
                .rows = reinterpret_cast<const SampleRow*>(wished.data()),
                .count = int(wishes.size()),
                .tokens = tokens.data()});
  return tokens;
}

int32_t DrawOne(const Logits& row, SampleRow wish) { return Draw({row}, {wish})[0]; }

int32_t OnHost(const Logits& row, const SampleRow& wish) {
  SamplingParams params;
  params.temperature = wish.temperature;
  params.top_k = wish.top_k;
  params.top_p = wish.top_p;
  params.min_p = wish.min_p;
  params.seed = wish.seed;
  return Sampler(params, {}, int(row.size())).Sample(row, int(wish.index)).token;
}

// Whether `token` is right for a share of top_p and a place of the draw that are 1e-5 off at most.
bool IsNearlyRight(const Logits& row, const SampleRow& wish, int32_t token) {
  std::vector<int> order;
  for (size_t i = 0; i < row.size(); ++i) {
    if (row[i] > -kInf) order.push_back(int(i));
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return row[size_t(a)] > row[size_t(b)]; });
  const double max = row[size_t(order[0])];
  const auto weight = [&](int id) {
    return std::exp((row[size_t(id)] - max) / double{wish.temperature});
  };
  while (weight(order.back()) < wish.min_p * (1 - 1e-5)) order.pop_back();
  if (wish.top_k > 0) order.resize(std::min(order.size(), size_t(wish.top_k)));
  double all = 0;
  for (const int id : order) all += weight(id);
  for (const double off : {-1e-5, 0.0, 1e-5}) {
    std::vector<int> kept;
    double mass = 0;
    for (const int id : order) {
      kept.push_back(id);
      mass += weight(id);
      if (mass >= wish.top_p * all * (1 + off)) break;
    }
    std::sort(kept.begin(), kept.end());
    const double place = UniformAt(wish.seed, wish.index) * mass;
    double before = 0;
    for (const int id : kept) {
      const double after = before + weight(id);
      if (id == token) {
        if (before - 1e-5 * mass <= place && place < after + 1e-5 * mass) return true;
        break;
      }
      before = after;
    }
  }
  return false;
}

struct Kind {
  const char* name;
  Logits (*make)(std::mt19937_64& random, int vocab);
};

Logits Normal(std::mt19937_64& random, int vocab, float deviation) {
  std::normal_distribution<float> normal(0, deviation);
  Logits row(static_cast<size_t>(vocab));
  for (float& v : row) v = normal(random);
  return row;
}

constexpr Kind kKinds[] = {
    {"flat", [](std::mt19937_64& random, int vocab) { return Normal(random, vocab, 0.3f); }},
    {"usual", [](std::mt19937_64& random, int vocab) { return Normal(random, vocab, 3); }},
    {"peaked", [](std::mt19937_64& random, int vocab) { return Normal(random, vocab, 20); }},
    {"ties",
     [](std::mt19937_64& random, int vocab) {
       Logits row = Normal(random, vocab, 2);
       for (float& v : row) v = std::round(v * 2) / 2;
       return row;
     }},
    {"shifted",
     [](std::mt19937_64& random, int vocab) {
       Logits row = Normal(random, vocab, 3);
       for (float& v : row) v -= 200;
       return row;
     }},
    {"holes",
     [](std::mt19937_64& random, int vocab) {
       Logits row = Normal(random, vocab, 3);
       for (float& v : row) {
         if (random() % 3 == 0) v = random() % 2 ? kNan : -kInf;
         if (random() % 50 == 0) v = -0.0f;
       }
       row[random() % row.size()] = 1;
       return row;
     }},
};

SampleRow RandomWish(std::mt19937_64& random, int row, int vocab) {
  const float temperatures[] = {1, 0.7f, 0.1f, 2, 1.3f, 50};
  const float shares[] = {1, 0.9f, 0.95f, 0.5f, 0.999f, 0.1f};
  const float least[] = {0, 0, 0.05f, 0.3f};
  const int counts[] = {0, 1, 5, 50, 400, 700, vocab - 1, vocab, vocab + 1};
  SampleRow wish{.row = row, .temperature = temperatures[random() % 6]};
  if (random() % 2) wish.top_k = std::max(0, counts[random() % 9]);
  if (random() % 2) wish.top_p = shares[random() % 6];
  if (random() % 3 == 0) wish.min_p = least[random() % 4];
  wish.seed = random();
  wish.index = random() % 100000;
  return wish;
}

TEST(Sample, AgreesWithTheHost) {
  int draws = 0, different = 0;
  std::mt19937_64 random(1);
  const auto check = [&](int vocab, int per_row) {
    for (const Kind& kind : kKinds) {
      const std::vector<Logits> rows = {kind.make(random, vocab), kind.make(random, vocab)};
      std::vector<SampleRow> wishes;
      for (int i = 0; i < per_row; ++i) wishes.push_back(RandomWish(random, i % 2, vocab));
      const auto tokens = Draw(rows, wishes);
      for (size_t i = 0; i < wishes.size(); ++i) {
        const Logits& row = rows[i % 2];
        ++draws;
        if (tokens[i] == OnHost(row, wishes[i])) continue;
        ++different;
        EXPECT_TRUE(IsNearlyRight(row, wishes[i], tokens[i]))
            << kind.name << " vocab " << vocab << " T " << wishes[i].temperature << " k "
            << wishes[i].top_k << " p " << wishes[i].top_p << " min " << wishes[i].min_p << ": "
            << tokens[i] << " not " << OnHost(row, wishes[i]);
      }
    }
  };
  for (const int vocab : {1, 2, 3, 127, 128, 129, 512, 1000, 2049, 5003}) check(vocab, 30);
  check(32003, 12);
  check(128256, 6);
  EXPECT_GE(draws, 1900);
  RecordProperty("different", different);
  EXPECT_LE(different * 1000, draws) << different << " of " << draws;
}

TEST(Sample, TheWidestVocabulary) {
  constexpr int kVocab = 262144;
  std::mt19937_64 random(3);
  const Logits flat(kVocab, 2.5f);  // every weight is 1, every key equal
  const Logits usual = Normal(random, kVocab, 0.1f);
  std::vector<SampleRow> wishes;
  for (const float top_p : {1.0f, 0.99f, 0.5f}) {
    for (const int top_k : {0, 100000, 777}) {
      for (const int row : {0, 1}) {
        wishes.push_back({row, 1, top_k, top_p, 0, uint64_t(top_k), uint64_t(row)});
      }
    }
  }
  const auto tokens = Draw({flat, usual}, wishes);
  for (size_t i = 0; i < wishes.size(); ++i) {
    const Logits& row = i % 2 == 0 ? flat : usual;
    if (tokens[i] == OnHost(row, wishes[i])) continue;
    EXPECT_TRUE(IsNearlyRight(row, wishes[i], tokens[i])) << i;
  }
}

TEST(Sample, GreedyTakesTheLowestIdOfTheLargest) {
  const SampleRow greedy{.row = 0, .temperature = 0, .top_k = 3, .top_p = 0.1f};
  EXPECT_EQ(DrawOne({1, 3, 3, 2}, greedy), 1);
  EXPECT_EQ(DrawOne({kNan, -kInf, -5, kNan, -5}, greedy), 2);
  EXPECT_EQ(DrawOne({-1, -0.0f, 0.0f}, greedy), 1);
  EXPECT_EQ(DrawOne({1, kInf, 3, kInf}, greedy), 1);
  EXPECT_EQ(DrawOne({kNan, kNan}, greedy), 0);
  EXPECT_EQ(DrawOne({-kInf, -kInf, kNan}, greedy), 0);
  Logits row(5000, 1);
  for (const int id : {4999, 4321, 2600, 128, 20}) {
    row[size_t(id)] = 2;
    EXPECT_EQ(DrawOne(row, greedy), id);
  }
}

TEST(Sample, WhatCannotBeDrawnIsGreedy) {
  // As on the host: no finite maximum, or a temperature without an inverse.
  EXPECT_EQ(DrawOne({1, kInf, 3}, {.row = 0, .temperature = 1}), 1);
  EXPECT_EQ(DrawOne({kNan, -kInf}, {.row = 0, .temperature = 1}), 0);
  EXPECT_EQ(DrawOne({1, 1.5f, 1.4f}, {.row = 0, .temperature = 1e-40f}), 1);
}

TEST(Sample, NarrowWishes) {
  std::mt19937_64 random(5);
  for (int i = 0; i < 20; ++i) {
    Logits row = Normal(random, 700, 2);
    row[300] = row[200] = row[100] = 9;
    const SampleRow any{.row = 0, .temperature = 5, .seed = uint64_t(i), .index = 3};
    SampleRow wish = any;
    wish.top_k = 1;
    EXPECT_EQ(DrawOne(row, wish), 100);
    wish = any;
    wish.top_p = 1e-6f;
    EXPECT_EQ(DrawOne(row, wish), 100);
    wish = any;
    wish.min_p = 1;  // those as likely as the likeliest
    const int32_t token = DrawOne(row, wish);
    EXPECT_TRUE(token == 100 || token == 200 || token == 300);
    wish.top_k = 2;
    EXPECT_LE(DrawOne(row, wish), 200);
    wish = any;
    wish.top_k = 2;
    EXPECT_LE(DrawOne(row, wish), 200);
    EXPECT_GE(DrawOne(row, wish), 100);
  }
}

// Every cut through ties: of `n` equal logits the first few by id stay.
TEST(Sample, TiesAreCutById) {
  constexpr int kTies = 40;
  Logits row(600, 0);
  std::vector<int> ids;
  for (int i = 0; i < kTies; ++i) {
    ids.push_back(i * 13 + 7);
    row[size_t(ids.back())] = 4;
  }
  std::vector<SampleRow> wishes;
  for (int k = 1; k <= kTies; ++k) {
    for (uint64_t index = 0; index < 5; ++index) {
      wishes.push_back({0, 0.01f, k, 1, 0, 9, index});
      wishes.push_back({0, 0.01f, 0, (float(k) - 0.5f) / kTies, 0, 9, index});
    }
  }
  const auto tokens = Draw({row}, wishes);
  for (size_t i = 0; i < wishes.size(); ++i) {
    const int k = int(i / 10) + 1;
    const double place = UniformAt(9, wishes[i].index) * k;
    EXPECT_EQ(tokens[i], ids[size_t(place)]) << k;
  }
}

// Few likely tokens, spread over all threads, among less likely ones in the same or in another bin
// of the first histogram: top-k must cut by count at, above and below their number.
TEST(Sample, TopKAroundTheNumberOfLikelyTokens) {
  constexpr int kVocab = 2048;
  for (const int likely : {32, 64, 512}) {
    for (const auto& [high, low] : {std::pair{1.0f, 0.5f}, std::pair{1.2f, 1.1f}}) {
      Logits row(kVocab, low);
      for (int id = 0; id < kVocab; id += kVocab / likely) row[size_t(id)] = high;
      std::vector<SampleRow> wishes;
      for (const int k : {likely - 1, likely, likely + 1, likely + 8, 600}) {
        for (uint64_t i = 0; i < 12; ++i) wishes.push_back({0, 1, k, 1, 0, uint64_t(k), i});
      }
      const auto tokens = Draw({row}, wishes);
      for (size_t i = 0; i < wishes.size(); ++i) {
        EXPECT_EQ(tokens[i], OnHost(row, wishes[i])) << likely << " " << wishes[i].top_k;
      }
    }
  }
}

TEST(Sample, SkippedRowsKeepTheirToken) {
  const auto tokens = Draw({{1, 2}}, {{.row = -1}, {.row = 0}, {.row = -1}});
  EXPECT_EQ(tokens, (std::vector<int32_t>{-7, 1, -7}));
}

TEST(Sample, TokensDependOnTheRowAlone) {
  std::mt19937_64 random(8);
  std::vector<Logits> rows;
  std::vector<SampleRow> wishes;
  for (int i = 0; i < 24; ++i) {
    rows.push_back(kKinds[size_t(i % 6)].make(random, 1500));
    wishes.push_back(RandomWish(random, i, 1500));
  }
  const auto tokens = Draw(rows, wishes);
  EXPECT_EQ(Draw(rows, wishes, 77), tokens);
  EXPECT_EQ(Draw(rows, wishes, 78), tokens);
  for (size_t i = 0; i < rows.size(); i += 5) {
    SampleRow alone = wishes[i];
    alone.row = 0;
    EXPECT_EQ(Draw({rows[i]}, {alone})[0], tokens[i]);
  }
}

TEST(Sample, FollowsTheDistributionOverIndices) {
  const std::vector<double> shares = {0.4, 0.05, 0.25, 0.1, 0.2};
  Logits row(130, -kInf);
  const int ids[] = {3, 40, 41, 77, 129};
  for (size_t i = 0; i < 5; ++i) row[size_t(ids[i])] = float(std::log(shares[i]));
  constexpr int kDraws = 2000;
  std::vector<SampleRow> wishes;
  for (uint64_t i = 0; i < kDraws; ++i) wishes.push_back({0, 1, 0, 1, 0, 12345, i});
  std::map<int32_t, int> counts;
  for (const int32_t token : Draw({row}, wishes)) ++counts[token];
  double chi = 0;
  int seen = 0;
  for (size_t i = 0; i < 5; ++i) {
    const double wanted = shares[i] * kDraws;
    chi += (counts[ids[i]] - wanted) * (counts[ids[i]] - wanted) / wanted;
    seen += counts[ids[i]];
  }
  EXPECT_EQ(seen, kDraws);
  EXPECT_LT(chi, 18.5);  // four degrees of freedom: once in a thousand
}

}  // namespace
}  // namespace lorad::kernels::cuda
