#include <atomic>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/kernels/conformance.h"

namespace lorad::kernels::conformance {
namespace {

class ElementwiseConformance : public testing::TestWithParam<std::string> {
 protected:
  Rig want_{{}};
  Rig got_{{.backend = GetParam(), .threads = 3}};

  // `op` makes an output tensor from an uploaded input on either rig.
  template <typename Op>
  void ExpectLike(const Rows& in, int out_rows, const Deviation& bound, const Op& op,
                  Precision precision = Precision::kActivation) {
    Rows out[2];
    int i = 0;
    for (Rig* rig : {&want_, &got_}) {
      const auto x = rig->Upload(in, 1, precision);
      const std::unique_ptr<Tensor> y = op(rig->backend(), *x);
      out[i++] = rig->Download(*y, out_rows);
    }
    EXPECT_TRUE(Within(out[1], out[0], bound)) << in.rows << " rows of " << in.cols;
  }
};

TEST_P(ElementwiseConformance, EmbedGivesTheTablesRows) {
  for (const int cols : {1, 16, 33, 64, 200}) {
    const Rows table = Make(Values::kGrid, 5, 40, cols);
    const std::vector<int> ids = {39, 0, 7, 7, 12};
    const std::vector<int32_t> tokens(ids.begin(), ids.end());
    for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
      const auto packed = got_.Pack(table, dtype);
      EXPECT_EQ(packed->rows(), 40);
      EXPECT_EQ(packed->cols(), cols);
      const auto out = got_.backend().NewTensor(6, cols);
      got_.backend().Embed(tokens, *packed, *out);
      EXPECT_TRUE(SameBits(got_.Download(*out, 5), Pick(table, ids))) << cols;
    }
  }
}

TEST_P(ElementwiseConformance, EmbedOfInt8) {
  for (const int cols : {1, 16, 33, 200}) {
    const Rows table = Make(Values::kDense, 5, 40, cols);
    const std::vector<int32_t> tokens = {39, 0, 7, 7, 12};
    Rows out[2];
    int i = 0;
    for (Rig* rig : {&want_, &got_}) {
      const auto packed = rig->Pack(table, DType::kF32, WeightFormat::kInt8);
      const auto tensor = rig->backend().NewTensor(6, cols, Precision::kFull);
      rig->backend().Embed(tokens, *packed, *tensor);
      out[i++] = rig->Download(*tensor, 5);
    }
    EXPECT_TRUE(SameBits(out[1], out[0])) << cols;
    EXPECT_TRUE(Within(out[1], Pick(table, std::vector<int>{39, 0, 7, 7, 12}), {0.01, 0.02}));
  }
}

TEST_P(ElementwiseConformance, EmbedRoundsToBf16AtMost) {
  const Rows table = Make(Values::kDense, 6, 20, 50);
  const auto tensor = got_.Upload(table);
  EXPECT_TRUE(Within(got_.Download(*tensor, 20), table, kBf16Bound));
}

TEST_P(ElementwiseConformance, RmsNorm) {
  for (const int cols : {1, 2, 15, 16, 17, 63, 64, 100, 768, 1001}) {
    const Rows weight = Make(Values::kDense, 8, 1, cols);
    const auto norm = [&](Backend& b, Tensor& x) {
      auto y = b.NewTensor(22, cols);
      const auto w = b.NewVector(weight.values);
      b.RmsNorm(21, x, *w, 1e-5f, *y);
      b.HostRow(*y, 0);
      return y;
    };
    const Rows in = Make(Values::kGrid, 7, 21, cols);
    for (const Precision precision : {Precision::kActivation, Precision::kFull}) {
      ExpectLike(in, 21, Stored(GetParam(), kF32Bound), norm, precision);
    }
  }
}

TEST_P(ElementwiseConformance, RmsNormOfZerosIsZero) {
  const Rows ones = [] {
    Rows r(1, 40);
    for (float& v : r.values) v = 1;
    return r;
  }();
  const auto x = got_.Upload(Rows(2, 40));
  const auto y = got_.backend().NewTensor(2, 40);
  const auto weight = got_.backend().NewVector(ones.values);
  got_.backend().RmsNorm(2, *x, *weight, 1e-6f, *y);
  EXPECT_TRUE(SameBits(got_.Download(*y, 2), Rows(2, 40)));
}

TEST_P(ElementwiseConformance, SwiGlu) {
  for (const int ffn : {1, 3, 16, 31, 64, 200, 1000}) {
    ExpectLike(Make(Values::kGrid, 9, 13, 2 * ffn), 13, Stored(GetParam(), kF32Bound),
               [&](Backend& b, Tensor& x) {
                 auto y = b.NewTensor(13, ffn);
                 b.SwiGlu(13, x, *y);
                 return y;
               });
  }
}

TEST_P(ElementwiseConformance, SwiGluOfLargeGates) {
  Rows in(1, 16);
  const std::vector<float> gates = {0, -0.0f, 20, -20, 96, -96, 4096, -4096};
  for (size_t i = 0; i < 8; ++i) {
    in.values[i] = gates[i];
    in.values[8 + i] = 1.5f;
  }
  ExpectLike(in, 1, Stored(GetParam(), kF32Bound), [](Backend& b, Tensor& x) {
    auto y = b.NewTensor(1, 8);
    b.SwiGlu(1, x, *y);
    return y;
  });
}

TEST_P(ElementwiseConformance, GatherRows) {
  for (const int cols : {1, 48, 65}) {
    const Rows in = Make(Values::kGrid, 11, 30, cols);
    const std::vector<int> wanted = {29, 3, 3, 0, 17};
    const std::vector<int32_t> rows(wanted.begin(), wanted.end());
    const auto x = got_.Upload(in);
    const auto y = got_.backend().NewTensor(5, cols);
    got_.backend().GatherRows(rows, *x, *y);
    EXPECT_TRUE(SameBits(got_.Download(*y, 5), Pick(in, wanted)));
  }
}

TEST_P(ElementwiseConformance, RopeAnglesAtLongPositions) {
  const std::vector<int32_t> positions = {0, 1, 2, 1000, 32767, 131071};
  for (const int head_dim : {2, 18, 64, 128}) {
    std::vector<float> inv_freq;
    for (int i = 0; i < head_dim / 2; ++i) {
      inv_freq.push_back(std::pow(500000.0f, -2.0f * float(i) / float(head_dim)));
    }
    ExpectLike(Rows(1, 1), 6, kF32Bound, [&](Backend& b, Tensor&) {
      auto angles = b.NewTensor(6, head_dim, Precision::kFull);
      const auto frequencies = b.NewVector(inv_freq);
      b.RopeAngles(positions, *frequencies, *angles);
      b.HostRow(*angles, 0);
      return angles;
    });
  }
}

TEST_P(ElementwiseConformance, HostRowGivesOneRow) {
  const Rows in = Make(Values::kGrid, 12, 3, 20);
  const auto x = got_.Upload(in);
  const auto row = got_.backend().HostRow(*x, 1);
  EXPECT_TRUE(SameBits(row, in.At(1)));
}

TEST_P(ElementwiseConformance, RowsAloneAndInBatches) {
  const Rows in = Make(Values::kDense, 13, 70, 202);
  const Rows weight = Make(Values::kDense, 14, 1, 202);
  const auto run = [&](const Rows& rows) {
    const auto x = got_.Upload(rows);
    const auto w = got_.backend().NewVector(weight.values);
    const auto normed = got_.backend().NewTensor(rows.rows, 202);
    const auto out = got_.backend().NewTensor(rows.rows, 101);
    got_.backend().RmsNorm(rows.rows, *x, *w, 1e-6f, *normed);
    got_.backend().SwiGlu(rows.rows, *normed, *out);
    return got_.Download(*out, rows.rows);
  };
  const Rows together = run(in);
  for (int row = 0; row < 70; ++row) {
    ASSERT_TRUE(SameBits(run(Pick(in, {&row, 1})).At(0), together.At(row))) << row;
  }
}

TEST_P(ElementwiseConformance, ParallelForRunsEachIndexOnce) {
  for (const int n : {0, 1, 2, 100}) {
    std::vector<std::atomic<int>> runs(size_t(n) + 1);
    got_.backend().ParallelFor(n, [&](int i) { ++runs[size_t(i)]; });
    for (int i = 0; i <= n; ++i) EXPECT_EQ(runs[size_t(i)], i < n ? 1 : 0) << i << " of " << n;
  }
}

INSTANTIATE_TEST_SUITE_P(All, ElementwiseConformance, testing::ValuesIn(Variants()), VariantName);

}  // namespace
}  // namespace lorad::kernels::conformance
