// The GEMM kernels of every instruction set and format against sums in double, and the property
// that everything above relies on: a row has the same bits whatever it is computed with.
#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/quantise.h"
#include "tests/unit/kernels/cpu/kernel_cases.h"

namespace lorad::kernels::cpu {
namespace {

constexpr double kF32 = 3e-6;  // of the result's size: sums of exact products in another order

class CpuGemm : public testing::TestWithParam<std::tuple<const KernelTable*, WeightFormat>> {
 protected:
  const KernelTable& kernels() const { return *std::get<0>(GetParam()); }
  Layer Make(int outputs, int inputs, bool bias) const {
    return MakeLayer(outputs, inputs, bias, std::get<1>(GetParam()));
  }
  GemmCut Whole() const { return {kernels().gemm_panels, kernels().gemm_rows}; }
  const FlushDenormals flush_;
};

std::vector<double> Expect(const Layer& layer, const std::vector<float>& x, int rows,
                           const std::vector<float>* y_before) {
  std::vector<double> y;
  for (int row = 0; row < rows; ++row) {
    for (int out = 0; out < layer.outputs; ++out) {
      double sum = layer.bias.empty() ? 0 : layer.bias[size_t(out)];
      if (y_before) sum += (*y_before)[size_t(row) * size_t(layer.outputs) + size_t(out)];
      for (int k = 0; k < layer.inputs; ++k) {
        sum += double{x[size_t(row) * size_t(layer.inputs) + size_t(k)]} *
               layer.w[size_t(out) * size_t(layer.inputs) + size_t(k)];
      }
      y.push_back(sum);
    }
  }
  return y;
}

TEST_P(CpuGemm, IsRightForEveryNumberOfRows) {
  const Layer layer = Make(80, 200, true);
  for (int rows = 1; rows <= 40; ++rows) {
    const std::vector<float> x = Values(7, int64_t{rows} * layer.inputs);
    EXPECT_LT(
        RelativeError(RunGemm(kernels(), layer, x, rows, Whole()), Expect(layer, x, rows, nullptr)),
        kF32)
        << rows << " rows";
  }
}

TEST_P(CpuGemm, IsRightForOddShapesBiasAndAccumulation) {
  for (const int outputs : {1, 15, 16, 17, 47, 48, 49, 100}) {
    for (const int inputs : {1, 2, 31, 32, 33, 64, 127, 300, 1100}) {
      const bool bias = outputs % 2 == 1;
      const Layer layer = Make(outputs, inputs, bias);
      for (const int rows : {1, 3, 9, 18}) {
        const std::vector<float> x = Values(8, int64_t{rows} * inputs);
        const std::vector<float> before = Values(9, int64_t{rows} * outputs);
        const std::vector<float>* added = inputs % 2 == 0 ? &before : nullptr;
        ASSERT_LT(RelativeError(RunGemm(kernels(), layer, x, rows, Whole(), added),
                                Expect(layer, x, rows, added)),
                  kF32)
            << outputs << " x " << inputs << ", " << rows << " rows";
      }
    }
  }
}

TEST_P(CpuGemm, ARowHasTheSameBitsWhateverItIsComputedWith) {
  const Layer layer = Make(70, 1130, true);
  constexpr int kRows = 40;
  const std::vector<float> x = Values(10, int64_t{kRows} * layer.inputs);
  const std::vector<float> before = Values(11, int64_t{kRows} * layer.outputs);
  std::vector<float> alone;  // each row by itself
  for (int row = 0; row < kRows; ++row) {
    const auto at = [row](const std::vector<float>& all, int cols) {
      return std::vector<float>(all.begin() + int64_t{row} * cols,
                                all.begin() + int64_t{row + 1} * cols);
    };
    const std::vector<float> x_row = at(x, layer.inputs), y_row = at(before, layer.outputs);
    const std::vector<float> got = RunGemm(kernels(), layer, x_row, 1, Whole(), &y_row);
    alone.insert(alone.end(), got.begin(), got.end());
  }
  for (int rows = 1; rows <= kRows; ++rows) {
    const std::vector<float> got = RunGemm(kernels(), layer, x, rows, Whole(), &before);
    ASSERT_TRUE(std::equal(got.begin(), got.end(), alone.begin())) << rows << " rows";
  }
  for (int panels = 1; panels <= kernels().gemm_panels; ++panels) {
    for (const int rows : {1, 5, 17, 33}) {
      const GemmCut cut{panels, rows, rows == 5};
      ASSERT_EQ(RunGemm(kernels(), layer, x, kRows, cut, &before), alone)
          << "tasks of " << panels << " panels and " << rows << " rows";
    }
  }
}

TEST_P(CpuGemm, TheLargestTaskFitsItsScratch) {
  const Layer layer = Make(16 * kernels().gemm_panels, 640, false);
  const int rows = kernels().gemm_rows;
  const std::vector<float> x = Values(12, int64_t{rows} * layer.inputs);
  EXPECT_LT(
      RelativeError(RunGemm(kernels(), layer, x, rows, Whole()), Expect(layer, x, rows, nullptr)),
      kF32);
}

INSTANTIATE_TEST_SUITE_P(Sets, CpuGemm,
                         testing::Combine(testing::ValuesIn(TablesToTest()),
                                          testing::Values(WeightFormat::kBf16,
                                                          WeightFormat::kInt8)),
                         [](const auto& set) {
                           return std::string(std::get<0>(set.param)->name) + "_" +
                                  std::string(Name(std::get<1>(set.param)));
                         });

}  // namespace
}  // namespace lorad::kernels::cpu
