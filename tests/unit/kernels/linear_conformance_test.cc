#include <numeric>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/kernels/linear_case.h"

namespace lorad::kernels::conformance {
namespace {

class LinearConformance : public testing::TestWithParam<WeightVariant> {
 protected:
  const std::string& backend() const { return GetParam().backend; }
  // With an output in full precision too, where that is another one.
  void ExpectLike(LinearCase problem, const Deviation& bound, size_t page_bytes = 4096,
                  uint32_t pages = 400) {
    if (problem.format == WeightFormat::kBf16) problem.format = GetParam().format;
    const Rows want = RunLinear({.page_bytes = page_bytes, .pages = pages}, problem);
    const auto expect = [&](const Deviation& within) {
      const Rows got =
          RunLinear({.backend = backend(), .page_bytes = page_bytes, .pages = pages}, problem);
      EXPECT_TRUE(Within(got, want, within))
          << problem.rows << " rows, " << problem.cols << " -> " << problem.out_cols();
    };
    const Deviation stored = Stored(backend(), bound);
    expect(stored);
    if (!TraitsOf(backend()).rounds_activations) return;
    problem.output = Precision::kFull;
    const bool exact = bound.norm == 0;  // then so are the activations that go in
    expect(exact ? bound : stored);
  }
};

TEST_P(LinearConformance, EqualToTheBitWhereNothingNeedsRounding) {
  for (const int rows : {1, 2, 3, 5, 8, 15, 16, 17, 33, 70}) {
    ExpectLike({.rows = rows, .cols = 64, .parts = {96}}, kExact);
  }
}

TEST_P(LinearConformance, OddShapes) {
  for (const int cols : {1, 2, 3, 16, 31, 33, 80, 127, 200}) {
    for (const int out : {1, 15, 17, 48, 65}) {
      ExpectLike({.rows = 5, .cols = cols, .parts = {out}}, kExact);
      ExpectLike({.rows = 37, .cols = cols, .parts = {out}}, kExact);
    }
  }
}

TEST_P(LinearConformance, BiasAccumulateAndStackedParts) {
  for (const int rows : {1, 7, 40}) {
    for (const bool bias : {false, true}) {
      for (const bool accumulate : {false, true}) {
        ExpectLike({.rows = rows,
                    .cols = 72,
                    .parts = {48, 17, 17},
                    .bias = bias,
                    .accumulate = accumulate},
                   kExact);
      }
    }
  }
}

TEST_P(LinearConformance, EveryFileFormat) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    ExpectLike({.rows = 6, .cols = 40, .parts = {24, 40}, .dtype = dtype}, kExact);
    ExpectLike({.rows = 9, .cols = 96, .parts = {64}, .dtype = dtype, .values = Values::kDense},
               kBf16Bound);
  }
}

TEST_P(LinearConformance, EveryWeightFormat) {
  if (GetParam().format != WeightFormat::kBf16) GTEST_SKIP() << "as with bf16";
  Rig rig({.backend = backend()});
  for (const WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4, WeightFormat::kFp8}) {
    if (!rig.backend().Supports(format)) continue;
    for (const int rows : {1, 40}) {
      ExpectLike({.rows = rows,
                  .cols = 200,
                  .parts = {48, 17},
                  .bias = true,
                  .accumulate = true,
                  .format = format,
                  .values = Values::kDense},
                 kBf16Bound);
    }
  }
}

TEST_P(LinearConformance, LargeDenseLayers) {
  ExpectLike({.rows = 4, .cols = 768, .parts = {1024}, .values = Values::kDense}, kBf16Bound);
  ExpectLike({.rows = 48, .cols = 1000, .parts = {300}, .values = Values::kDense}, kBf16Bound);
}

TEST_P(LinearConformance, MixedRanks) {
  LinearCase problem{.cols = 96, .parts = {80}, .site = 0};
  for (const int rank : {1, 3, 8, 16, 33, 64, 256}) {
    problem.adapters.push_back(
        {{.site = 0, .rank = rank, .d_in = 96, .out_cols = 80, .scale = 2.0f / float(rank)}});
  }
  for (const int run : {1, 2, 5, 19}) {
    problem.rows = run * 9 + 1;
    problem.adapter_of_row = AdaptersInRuns(problem.rows, 7, run);
    problem.values = Values::kGrid;
    ExpectLike(problem, kBf16Bound);
    problem.values = Values::kDense;
    for (auto& adapter : problem.adapters) adapter[0].values = Values::kDense;
    ExpectLike(problem, kBf16Bound);
  }
}

// A prompt's rows on one adapter, between those of others.
TEST_P(LinearConformance, LongSegments) {
  LinearCase problem{.rows = 230, .cols = 96, .parts = {80}, .site = 0};
  for (const int rank : {8, 20}) {
    problem.adapters.push_back(
        {{.site = 0, .rank = rank, .d_in = 96, .out_cols = 80, .scale = 2.0f / float(rank)}});
  }
  for (const bool accumulate : {false, true}) {
    problem.accumulate = accumulate;
    problem.adapter_of_row.assign(230, 0);
    for (int row = 0; row < 230; ++row) {
      if (row >= 3) problem.adapter_of_row[size_t(row)] = row < 140 ? 1 : row < 145 ? -1 : 0;
    }
    ExpectLike(problem, kBf16Bound);
  }
}

// q, k and v of a site with three, two and one of the projections changed, others with none of this
// site's.
std::vector<std::vector<ModuleSpec>> StackedAdapters() {
  return {
      {{.site = 1, .rank = 8, .d_in = 72, .out_begin = 0, .out_cols = 48, .scale = 0.25f},
       {.site = 1, .rank = 5, .d_in = 72, .out_begin = 48, .out_cols = 17, .scale = 0.5f},
       {.site = 1, .rank = 16, .d_in = 72, .out_begin = 65, .out_cols = 17, .scale = 0.125f},
       {.site = 2, .rank = 4, .d_in = 40, .out_begin = 0, .out_cols = 8}},
      {{.site = 0, .rank = 3, .d_in = 24, .out_begin = 0, .out_cols = 30},
       {.site = 1, .rank = 33, .d_in = 72, .out_begin = 0, .out_cols = 48, .scale = 0.0625f},
       {.site = 1, .rank = 2, .d_in = 72, .out_begin = 65, .out_cols = 17, .scale = 0.5f}},
      {{.site = 1, .rank = 64, .d_in = 72, .out_begin = 48, .out_cols = 17, .scale = 0.03f}},
      {{.site = 2, .rank = 4, .d_in = 40, .out_begin = 0, .out_cols = 8}},
  };
}

TEST_P(LinearConformance, SeveralModulesASite) {
  for (const int run : {1, 4, 20}) {
    LinearCase problem{.rows = run * 11,
                       .cols = 72,
                       .parts = {48, 17, 17},
                       .bias = true,
                       .accumulate = run == 4,
                       .adapters = StackedAdapters()};
    problem.adapter_of_row = AdaptersInRuns(problem.rows, 4, run);
    ExpectLike(problem, kBf16Bound);
  }
}

TEST_P(LinearConformance, WeightsOfRequests) {
  LinearCase problem{.rows = 24, .cols = 72, .parts = {48, 17, 17}, .adapters = StackedAdapters()};
  problem.adapter_of_row = AdaptersInRuns(24, 4, 3);
  for (int row = 0; row < 24; ++row) {
    problem.weight_of_row.push_back(std::vector<float>{0.0f, 0.5f, 1.0f, -2.0f}[size_t(row) % 4]);
  }
  ExpectLike(problem, kBf16Bound);
}

TEST_P(LinearConformance, WeightZeroIsTheBaseModel) {
  LinearCase problem{.rows = 20, .cols = 72, .parts = {48, 17, 17}, .adapters = StackedAdapters()};
  problem.format = GetParam().format;
  const Rows base = RunLinear({.backend = backend(), .pages = 400}, problem);
  problem.adapter_of_row = AdaptersInRuns(20, 4, 3);
  problem.weight_of_row.assign(20, 0.0f);
  const Rows weightless = RunLinear({.backend = backend(), .pages = 400}, problem);
  EXPECT_TRUE(Within(weightless, base, kExact));
}

TEST_P(LinearConformance, ScaleAndWeightMultiply) {
  LinearCase problem{.rows = 4, .cols = 64, .parts = {32}, .site = 0};
  problem.adapters = {{{.site = 0, .rank = 8, .d_in = 64, .out_cols = 32, .scale = 0.5f}},
                      {{.site = 0, .rank = 8, .d_in = 64, .out_cols = 32, .scale = 4.0f}}};
  problem.adapter_of_row = {0, 1, 1, 0};
  problem.weight_of_row = {2.0f, 0.25f, 1.0f, 1.0f};
  ExpectLike(problem, kBf16Bound);
}

TEST_P(LinearConformance, ImagesOverManySmallPages) {
  // The image's rows are longer than what is left of most pages.
  LinearCase problem{.rows = 6, .cols = 700, .parts = {600}, .site = 0};
  problem.adapters = {{{.site = 0, .rank = 7, .d_in = 700, .out_cols = 600, .scale = 0.01f}},
                      {{.site = 0, .rank = 40, .d_in = 700, .out_cols = 600, .scale = 0.01f}}};
  problem.adapter_of_row = AdaptersInRuns(6, 2, 1);
  ExpectLike(problem, kBf16Bound, 4096, 400);
  ExpectLike(problem, kBf16Bound, 1 << 16, 64);
  problem.rows = 60;
  problem.adapter_of_row = AdaptersInRuns(60, 2, 18);
  ExpectLike(problem, kBf16Bound, 4096, 400);
}

TEST_P(LinearConformance, AdapterFilesOfEveryFormat) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    LinearCase problem{.rows = 5, .cols = 48, .parts = {40}, .site = 0};
    problem.adapters = {
        {{.site = 0, .rank = 6, .d_in = 48, .out_cols = 40, .scale = 0.5f, .dtype = dtype}}};
    problem.adapter_of_row = AdaptersInRuns(5, 1, 2);
    ExpectLike(problem, kBf16Bound);
  }
}

// A feed-forward layer whose adapters change gate and up, one of them, or neither; with `odd` also
// a part of one, and columns that fill no vector.
LinearCase FeedForward(bool odd) {
  const int ffn = odd ? 45 : 104;
  const auto module = [&](int rank, bool up) {
    return ModuleSpec{.site = 1,
                      .rank = rank,
                      .d_in = 90,
                      .out_begin = up ? ffn : 0,
                      .out_cols = ffn,
                      .scale = 0.05f,
                      .values = Values::kDense};
  };
  LinearCase problem{.cols = 90,
                     .parts = {ffn, ffn},
                     .values = Values::kDense,
                     .site = 1,
                     .adapters = {{module(16, false), module(16, true)},
                                  {module(5, true)},
                                  {module(1, false), module(256, true)},
                                  {module(40, false)},
                                  {{.site = 2, .rank = 4, .d_in = 40, .out_cols = 8}}},
                     .activation = true};
  if (odd) {
    problem.adapters.push_back({module(9, false)});
    problem.adapters.back()[0].out_cols = 30;
  }
  return problem;
}

TEST_P(LinearConformance, ActivationOfWhatAdaptersChange) {
  // A product of two results is off by what both are.
  constexpr Deviation kBound{2 * kBf16Bound.norm, 2 * kBf16Bound.highest};
  for (const bool odd : {false, true}) {
    for (const int run : {1, 3, 18, 40}) {
      LinearCase problem = FeedForward(odd);
      problem.rows = run * 7;
      problem.adapter_of_row = AdaptersInRuns(problem.rows, int(problem.adapters.size()), run);
      problem.format = GetParam().format;
      const Rows want = RunLinear({.pages = 400}, problem);
      const Rows got = RunLinear({.backend = backend(), .pages = 400}, problem);
      EXPECT_TRUE(Within(got, want, Stored(backend(), kBound))) << run << " odd " << odd;
    }
  }
}

TEST_P(LinearConformance, LayoutKeepsItsPromises) {
  for (const size_t page_bytes : {size_t{4096}, size_t{20480}, size_t{1} << 16}) {
    Rig rig({.backend = backend(), .page_bytes = page_bytes, .pages = 400});
    const LoadedAdapter adapter(rig, StackedAdapters()[0], 1, kSites);
    const AdapterLayout& layout = adapter.layout;
    ASSERT_EQ(layout.site_begin.size(), kSites + 1);
    EXPECT_EQ(layout.modules.size(), 4u);
    EXPECT_EQ(layout.At(0).size(), 0u);
    EXPECT_EQ(layout.At(1).size(), 3u);
    EXPECT_EQ(layout.At(2).size(), 1u);
    EXPECT_EQ(layout.At(99).size(), 0u);
    EXPECT_LE(layout.image_bytes, uint64_t{layout.pages} * page_bytes);
    EXPECT_GT(layout.image_bytes, uint64_t{layout.pages - 1} * page_bytes);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(layout.At(1)[i].out_begin, (std::vector<uint32_t>{0, 48, 65}[i]));
      EXPECT_EQ(layout.At(1)[i].rank, (std::vector<uint32_t>{8, 5, 16}[i]));
    }
    for (const AdapterModule& module : layout.modules) {
      for (const TileRows& tile : {module.a, module.b}) {
        EXPECT_LE(tile.row_bytes, page_bytes);
        EXPECT_LT(tile.offset, layout.image_bytes);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, LinearConformance, testing::ValuesIn(WeightVariants()),
                         WeightVariantName);

// --- Bit-identical whatever the batch ---

class LinearInvariance : public testing::TestWithParam<WeightVariant> {
 protected:
  static constexpr int kRows = 96;

  // Dense values, so that any other order of summation shows.
  static LinearCase Problem() {
    LinearCase problem{.rows = kRows,
                       .cols = 300,
                       .parts = {100, 41},
                       .bias = true,
                       .accumulate = true,
                       .values = Values::kDense,
                       .site = 1};
    for (const int rank : {1, 8, 16, 33, 70}) {
      problem.adapters.push_back({{.site = 1,
                                   .rank = rank,
                                   .d_in = 300,
                                   .out_begin = 0,
                                   .out_cols = 100,
                                   .scale = 0.3f,
                                   .values = Values::kDense},
                                  {.site = 1,
                                   .rank = rank + 3,
                                   .d_in = 300,
                                   .out_begin = 100,
                                   .out_cols = 41,
                                   .scale = 0.7f,
                                   .values = Values::kDense}});
    }
    problem.adapter_of_row = AdaptersInRuns(kRows, 5, 4);
    problem.format = GetParam().format;
    return problem;
  }
  RigOptions Options(int threads = 2, uint64_t placement = 1, size_t page_bytes = 4096) const {
    return {.backend = GetParam().backend,
            .threads = threads,
            .page_bytes = page_bytes,
            .pages = 600,
            .placement = placement};
  }
  void ExpectRows(const Rows& got, std::span<const int> order) {
    for (size_t i = 0; i < order.size(); ++i) {
      ASSERT_TRUE(SameBits(got.At(int(i)), alone_.At(order[i])))
          << "row " << order[i] << " as row " << i << " of " << order.size();
    }
  }
  void SetUp() override {
    Rig rig(Options());
    LoadedLinear linear(rig, Problem());
    alone_ = Rows(kRows, Problem().out_cols());
    for (int row = 0; row < kRows; ++row) {
      std::ranges::copy(linear.Run({&row, 1}).At(0), alone_.At(row).begin());
    }
  }

  Rows alone_;
};

TEST_P(LinearInvariance, BatchesOfAnySize) {
  Rig rig(Options());
  LoadedLinear linear(rig, Problem());
  for (const int size : {2, 3, 4, 5, 7, 8, 9, 12, 16, 17, 24, 31, 32, 33, 48, 64, 65, 96}) {
    std::vector<int> order(size_t(size), 0);
    for (const int first : {0, 7, 50}) {
      std::iota(order.begin(), order.end(), first);
      for (int& row : order) row %= kRows;
      ExpectRows(linear.Run(order), order);
    }
  }
}

TEST_P(LinearInvariance, SegmentsOfAnyOrderAndLength) {
  Rig rig(Options());
  LoadedLinear linear(rig, Problem());
  std::vector<int> order;
  for (int i = 0; i < kRows; ++i) order.push_back(kRows - 1 - i);
  ExpectRows(linear.Run(order), order);
  for (int i = 0; i < kRows; ++i) order[size_t(i)] = i * 37 % kRows;
  ExpectRows(linear.Run(order), order);  // segments of one row
  std::ranges::stable_sort(order, {},
                           [](int row) { return Problem().adapter_of_row[size_t(row)]; });
  ExpectRows(linear.Run(order), order);  // long segments
}

TEST_P(LinearInvariance, RowsOfLongSegments) {
  Rig rig(Options());
  LoadedLinear linear(rig, Problem());
  std::vector<int> order = {0, 1};  // of the first adapter; then many of the third, base rows
  for (int i = 0; i < 150; ++i) order.push_back(8 + i % 4);
  for (int i = 20; i < 24; ++i) order.push_back(i);
  ExpectRows(linear.Run(order), order);
}

TEST_P(LinearInvariance, ThroughTheActivationToo) {
  constexpr int kEach = 9;
  for (const bool odd : {false, true}) {
    LinearCase problem = FeedForward(odd);
    const int adapters = int(problem.adapters.size());
    problem.rows = kEach * (adapters + 1);
    problem.adapter_of_row = AdaptersInRuns(problem.rows, adapters, kEach);
    problem.format = GetParam().format;
    Rig rig(Options());
    LoadedLinear linear(rig, problem);
    std::vector<int> in_order(size_t(problem.rows)), shuffled, long_runs;
    std::iota(in_order.begin(), in_order.end(), 0);
    for (const int row : in_order) shuffled.push_back(row * 7 % problem.rows);
    // Many rows of one adapter and many of none, a few of one whose rank is great.
    for (int i = 0; i < 70; ++i) long_runs.push_back(i % kEach);
    for (int i = 0; i < 5; ++i) long_runs.push_back(2 * kEach + i);
    for (int i = 0; i < 70; ++i) long_runs.push_back(adapters * kEach + i % kEach);
    std::vector<Rows> alone;
    for (const int row : in_order) alone.push_back(linear.Run({&row, 1}));
    for (const auto& order : {in_order, shuffled, long_runs}) {
      const Rows together = linear.Run(order);
      for (size_t i = 0; i < order.size(); ++i) {
        EXPECT_TRUE(SameBits(alone[size_t(order[i])].At(0), together.At(int(i))))
            << "row " << order[i] << " as row " << i << " of " << order.size() << " odd " << odd;
      }
    }
  }
}

TEST_P(LinearInvariance, ThreadsPagesAndPlacement) {
  std::vector<int> order(kRows);
  std::iota(order.begin(), order.end(), 0);
  for (const RigOptions& options :
       {Options(1), Options(3, 99), Options(5, 7), Options(2, 3, 65536)}) {
    Rig rig(options);
    LoadedLinear linear(rig, Problem());
    ExpectRows(linear.Run(order), order);
    const std::vector<int> few = {1, 60, 3};
    ExpectRows(linear.Run(few), few);
  }
}

INSTANTIATE_TEST_SUITE_P(All, LinearInvariance, testing::ValuesIn(WeightVariants()),
                         WeightVariantName);

}  // namespace
}  // namespace lorad::kernels::conformance
