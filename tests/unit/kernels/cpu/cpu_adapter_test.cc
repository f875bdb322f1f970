// The adapter kernels of every instruction set, below the backend: any rank, any page end, any
// number of rows.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/adapter_image.h"
#include "kernels/cpu/thread_pool.h"
#include "tests/unit/kernels/cpu/kernel_cases.h"

namespace lorad::kernels::cpu {
namespace {

constexpr size_t kPage = 4096;
constexpr int kRanks[] = {1, 2, 3, 4, 7, 8, 12, 16, 17, 64, 256};

// One module in an image that starts `lead_lines` lines into its first page, so that every line may
// be where a page ends.
struct Image {
  Image(TileOrder order, int rank, int d_in, int out_cols, int lead_lines) {
    a = Values(20, int64_t{rank} * d_in);
    b = Values(21, int64_t{out_cols} * rank);
    LowRankFactors f[2];
    // What comes first: lead_lines lines of another module's A, and one of its B.
    const int lead_d_in = lead_lines * 32;
    lead.assign(static_cast<size_t>(lead_d_in) + 16, 1.0f);
    f[0] = {.site = 0,
            .a = {DType::kF32, lead.data(), 1, lead_d_in},
            .b = {DType::kF32, lead.data(), 16, 1}};
    f[1] = {.site = 1,
            .a = {DType::kF32, a.data(), rank, d_in},
            .b = {DType::kF32, b.data(), out_cols, rank}};
    const AdapterLayout layout = PlanAdapterImage(f, 2, kPage);
    memory.assign(kPage * (layout.pages + 1), std::byte{0xff});
    for (uint32_t i = 0; i < layout.pages; ++i) pages.push_back(layout.pages - i);  // backwards
    PackAdapterImage(layout, f, {memory.data(), kPage}, pages, order);
    module = layout.At(1)[0];
  }
  PagedImage view() const { return {memory.data(), kPage, pages.data()}; }

  std::vector<float> a, b, lead;
  std::vector<std::byte> memory;
  std::vector<uint32_t> pages;
  AdapterModule module;
};

class CpuAdapter : public testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& kernels() const { return *GetParam(); }

  // t [rows, rank rounded up to even]
  std::vector<float> Shrink(const Image& image, const std::vector<float>& x, int rows) {
    const auto rank = static_cast<int>(image.module.rank),
               d_in = static_cast<int>(image.module.d_in);
    const int stride = (rank + 1) / 2 * 2, k = (d_in + 31) / 32 * 32;
    std::vector<float> t(size_t(rows) * size_t(stride), std::nanf(""));
    const ActivationRows activations(kernels(), x, rows, d_in);
    uint64_t offset = image.module.a.offset;
    for (int group = 0; group < rank; group += kRankGroup) {
      const int ranks = std::min(kRankGroup, rank - group);
      kernels().shrink({.x = activations.view(),
                        .image = image.view(),
                        .offset = offset,
                        .ranks = ranks,
                        .k = k,
                        .rows = rows,
                        .t = t.data() + group,
                        .t_stride = stride});
      offset += uint64_t(ranks) * uint64_t(k) * 2;
    }
    return t;
  }

  std::vector<float> Expand(const Image& image, const std::vector<float>& t, int rows,
                            const std::vector<float>& before) {
    const auto rank = static_cast<int>(image.module.rank),
               cols = static_cast<int>(image.module.out_cols);
    std::vector<float> y = before;
    kernels().expand({.t = t.data(),
                      .t_stride = (rank + 1) / 2 * 2,
                      .image = image.view(),
                      .offset = image.module.b.offset,
                      .rank_pairs = (rank + 1) / 2,
                      .cols = cols,
                      .rows = rows,
                      .scale = 0.75f,
                      .y = y.data(),
                      .y_stride = cols + 3});
    return y;
  }

  const FlushDenormals flush_;
};

TEST_P(CpuAdapter, EveryRankIsRightWhereverPagesEnd) {
  for (const int rank : kRanks) {
    for (const int lead : {1, 20, 61, 62}) {
      const int d_in = 100, cols = 70, rows = lead % 5 + lead % 2 * 60 + 1,
                stride = (rank + 1) / 2 * 2;
      const Image image(kernels().tile_order, rank, d_in, cols, lead);
      const auto x = Values(22, int64_t{rows} * d_in);
      const std::vector<float> t = Shrink(image, x, rows);
      std::vector<double> want_t, want_y;
      const auto before = Values(23, int64_t{rows} * (cols + 3));
      for (int row = 0; row < rows; ++row) {
        for (int r = 0; r < stride; ++r) {
          double sum = 0;
          for (int k = 0; r < rank && k < d_in; ++k)
            sum += double{x[size_t(row * d_in + k)]} * image.a[size_t(r * d_in + k)];
          want_t.push_back(sum);
        }
        for (int c = 0; c < cols + 3; ++c) {
          double sum = 0;
          for (int r = 0; c < cols && r < rank; ++r)
            sum += double{t[size_t(row * stride + r)]} * image.b[size_t(c * rank + r)];
          want_y.push_back(before[size_t(row * (cols + 3) + c)] + 0.75 * sum);
        }
      }
      ASSERT_LT(RelativeError(t, want_t), 1e-6) << "shrink, rank " << rank << ", lead " << lead;
      const std::vector<float> y = Expand(image, t, rows, before);
      ASSERT_LT(RelativeError(y, want_y), 1e-6) << "expand, rank " << rank << ", lead " << lead;
      for (int row = 0; row < rows; ++row) {
        for (int c = cols; c < cols + 3; ++c) {
          const auto at = size_t(row * (cols + 3) + c);
          ASSERT_EQ(y[at], before[at]) << "a neighbour's column was touched";
        }
      }
    }
  }
}

TEST_P(CpuAdapter, ARowHasTheSameBitsAloneAndAmongAnyNumber) {
  for (const int rank : {1, 7, 16, 40}) {
    const int d_in = 700, cols = 83, rows = 37, stride = (rank + 1) / 2 * 2;
    const Image image(kernels().tile_order, rank, d_in, cols, 13);
    const auto x = Values(24, int64_t{rows} * d_in);
    const auto before = Values(25, int64_t{rows} * (cols + 3));
    const auto slice = [](const std::vector<float>& all, int first, int count, int width) {
      return std::vector<float>(all.begin() + int64_t{first} * width,
                                all.begin() + int64_t{first + count} * width);
    };
    std::vector<float> t_alone, y_alone;
    for (int row = 0; row < rows; ++row) {
      const auto t = Shrink(image, slice(x, row, 1, d_in), 1);
      const auto y = Expand(image, t, 1, slice(before, row, 1, cols + 3));
      t_alone.insert(t_alone.end(), t.begin(), t.end());
      y_alone.insert(y_alone.end(), y.begin(), y.end());
    }
    for (int first = 0, count = 1; first + count <= rows; first += 2, ++count) {
      const auto t = Shrink(image, slice(x, first, count, d_in), count);
      ASSERT_EQ(t, slice(t_alone, first, count, stride))
          << "rank " << rank << ", " << count << " rows";
      ASSERT_EQ(Expand(image, t, count, slice(before, first, count, cols + 3)),
                slice(y_alone, first, count, cols + 3))
          << "rank " << rank << ", " << count << " rows";
    }
    const auto t = Shrink(image, x, rows);
    ASSERT_EQ(t, t_alone);
    ASSERT_EQ(Expand(image, t, rows, before), y_alone);
  }
}

TEST_P(CpuAdapter, WherePagesEndChangesNoBit) {
  const int rank = 12, d_in = 640, cols = 96, rows = 3;
  const auto x = Values(26, int64_t{rows} * d_in);
  const auto before = Values(27, int64_t{rows} * (cols + 3));
  std::vector<float> first_y;
  for (int lead = 1; lead < 64; lead += 3) {
    const Image image(kernels().tile_order, rank, d_in, cols, lead);
    const auto y = Expand(image, Shrink(image, x, rows), rows, before);
    if (first_y.empty()) first_y = y;
    ASSERT_EQ(y, first_y) << "lead " << lead;
  }
}

INSTANTIATE_TEST_SUITE_P(Sets, CpuAdapter, testing::ValuesIn(TablesToTest()),
                         [](const auto& set) { return std::string(set.param->name); });

}  // namespace
}  // namespace lorad::kernels::cpu
