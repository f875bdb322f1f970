// Row kernels against plain loops in double, in every format on either side, at widths on and off
// each granule; and the same bits for a row wherever it lies and in whatever order threads run.
#include "kernels/cuda/row_ops.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/emulator/launcher.h"
#include "tests/unit/kernels/cuda/dense_case.h"

namespace lorad::kernels::cuda {
namespace {

uint16_t Bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
float Float(uint16_t bf16) { return std::bit_cast<float>(uint32_t{bf16} << 16); }

// A tensor of the device with zero padding.
class Rows {
 public:
  Rows(int rows, int cols, bool full)
      : rows_(rows),
        memory_(size_t(rows) * size_t(PaddedColumns(cols)) * (full ? 4 : 2)),
        view_{memory_.data(), cols, PaddedColumns(cols), full} {}

  const TensorView& view() const { return view_; }
  int rows() const { return rows_; }

  float At(int row, int col) const {
    const size_t at = size_t(row) * size_t(view_.stride) + size_t(col);
    return view_.full ? static_cast<const float*>(view_.data)[at]
                      : Float(static_cast<const uint16_t*>(view_.data)[at]);
  }
  void Set(int row, int col, float value) {
    const size_t at = size_t(row) * size_t(view_.stride) + size_t(col);
    if (view_.full) {
      static_cast<float*>(view_.data)[at] = value;
    } else {
      static_cast<uint16_t*>(view_.data)[at] = Bf16(value);
    }
  }
  void SetRow(int row, const Rows& from, int from_row) {
    for (int col = 0; col < view_.cols; ++col) Set(row, col, from.At(from_row, col));
  }
  std::vector<uint32_t> Bits(int row) const {
    std::vector<uint32_t> bits;
    for (int col = 0; col < view_.cols; ++col) {
      bits.push_back(std::bit_cast<uint32_t>(At(row, col)));
    }
    return bits;
  }
  bool PaddingIsZero() const {
    for (int row = 0; row < rows_; ++row) {
      for (int col = view_.cols; col < view_.stride; ++col) {
        if (std::bit_cast<uint32_t>(At(row, col)) != 0) return false;
      }
    }
    return true;
  }

 private:
  int rows_;
  Memory memory_;
  TensorView view_;
};

Rows Random(uint64_t seed, int rows, int cols, bool full, float size = 1) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0, size);
  Rows out(rows, cols, full);
  for (int row = 0; row < rows; ++row) {
    for (int col = 0; col < cols; ++col) out.Set(row, col, normal(random));
  }
  return out;
}

// Half an ulp of the format and a few roundings of fp32 on the way.
double Bound(double value, bool full) {
  return std::abs(value) * ((full ? 0 : 0x1p-8) + 1e-6) + 1e-30;
}

constexpr int kWidths[] = {1, 7, 8, 63, 64, 65, 100, 200, 1000, 2048, 4100};

TEST(RowOps, RmsNorm) {
  for (const bool x_full : {false, true}) {
    for (const bool y_full : {false, true}) {
      for (const int cols : kWidths) {
        SCOPED_TRACE(cols);
        const Rows x = Random(uint64_t(cols), 3, cols, x_full, 4);
        // Right after each other, so a weight need not be aligned.
        const Rows all = Random(7, 1, cols + 1, true);
        const float* weight = static_cast<const float*>(all.view().data) + cols % 2;
        Rows y(3, cols, y_full);
        emulator::EmulatedLauncher launch;
        LaunchRmsNorm(launch, 3, x.view(), weight, 1e-5f, y.view());
        for (int row = 0; row < 3; ++row) {
          double sum = 0;
          for (int col = 0; col < cols; ++col) sum += double{x.At(row, col)} * x.At(row, col);
          const double scale = 1 / std::sqrt(sum / cols + double{1e-5f});
          for (int col = 0; col < cols; ++col) {
            const double want = x.At(row, col) * scale * weight[col];
            ASSERT_NEAR(y.At(row, col), want, Bound(want, y_full)) << row << " " << col;
          }
        }
        EXPECT_TRUE(y.PaddingIsZero());
      }
    }
  }
}

TEST(RowOps, RmsNormOfZerosIsZeroAndOfANaNStaysInItsRow) {
  Rows x(3, 70, true);
  x.Set(1, 3, std::nanf(""));
  const Rows weight = Random(1, 1, 70, true);
  Rows y(3, 70, true);
  emulator::EmulatedLauncher launch;
  LaunchRmsNorm(launch, 3, x.view(), static_cast<const float*>(weight.view().data), 1e-6f,
                y.view());
  for (int col = 0; col < 70; ++col) {
    EXPECT_EQ(y.At(0, col), 0);
    EXPECT_TRUE(std::isnan(y.At(1, col)));
    EXPECT_EQ(y.At(2, col), 0);
  }
  EXPECT_TRUE(y.PaddingIsZero());
}

TEST(RowOps, SwiGlu) {
  for (const bool x_full : {false, true}) {
    for (const bool y_full : {false, true}) {
      for (const int cols : kWidths) {
        SCOPED_TRACE(cols);
        Rows x = Random(uint64_t(cols), 2, 2 * cols, x_full, 3);
        x.Set(0, 0, -100);  // exp overflows
        x.Set(1, 0, 100);
        Rows y(2, cols, y_full);
        emulator::EmulatedLauncher launch;
        LaunchSwiGlu(launch, 2, x.view(), y.view());
        for (int row = 0; row < 2; ++row) {
          for (int col = 0; col < cols; ++col) {
            const double gate = x.At(row, col);
            const double want = gate / (1 + std::exp(-gate)) * x.At(row, cols + col);
            ASSERT_NEAR(y.At(row, col), want, Bound(want, y_full)) << row << " " << col;
          }
        }
        EXPECT_TRUE(y.PaddingIsZero());
      }
    }
  }
}

TEST(RowOps, EmbedTakesRowsOfTheTableAndSampledIds) {
  const std::vector<int32_t> sampled = {4, 9, 0};
  const std::vector<int32_t> ids = {9, -1, 0, -3, -2, 5};
  const std::vector<int> want = {9, 4, 0, 0, 9, 5};
  for (const WeightFormat format : kFormats) {
    for (const int cols : {1, 8, 64, 65, 2100}) {
      SCOPED_TRACE(cols);
      const Weights table(NormalValues(size_t(10 * cols), 3), 10, cols, format);
      for (const bool full : {false, true}) {
        Rows out(6, cols, full), exact(1, cols, full);
        emulator::EmulatedLauncher launch;
        LaunchEmbed(launch, 6, ids.data(), sampled.data(), table.view(), out.view());
        for (int i = 0; i < 6; ++i) {
          for (int col = 0; col < cols; ++col) {
            exact.Set(0, col, float(table.Weight(want[size_t(i)], col)));
          }
          EXPECT_EQ(out.Bits(i), exact.Bits(0)) << i;
        }
        EXPECT_TRUE(out.PaddingIsZero());
      }
    }
  }
}

TEST(RowOps, EmbedOfAnIdOutsideOfTheTableReadsNothing) {
  const std::vector<int32_t> ids = {4, 1 << 30, 3};
  for (const WeightFormat format : kFormats) {
    const Weights table(NormalValues(4 * 64, 3), 4, 64, format);
    Rows out = Random(5, 3, 64, false);
    emulator::EmulatedLauncher launch;
    LaunchEmbed(launch, 3, ids.data(), nullptr, table.view(), out.view());
    EXPECT_EQ(out.Bits(0), Rows(1, 64, false).Bits(0));
    EXPECT_EQ(out.Bits(1), Rows(1, 64, false).Bits(0));
    EXPECT_NE(out.Bits(2), Rows(1, 64, false).Bits(0));
  }
}

// Distance in representable floats.
int64_t Ulps(float a, float b) {
  const auto key = [](float value) {
    const auto bits = std::bit_cast<int32_t>(value);
    return bits < 0 ? int64_t{INT32_MIN} - bits : int64_t{bits};
  };
  return std::abs(key(a) - key(b));
}

void ExpectAngles(std::span<const int32_t> positions, std::span<const float> inv_freq) {
  const int rows = int(positions.size()), frequencies = int(inv_freq.size());
  Rows angles(rows, 2 * frequencies, true);
  emulator::EmulatedLauncher launch;
  LaunchRopeAngles(launch, rows, positions.data(), inv_freq.data(), frequencies, angles.view());
  int rounded_elsewhere = 0;  // the double's rounding to float hides nearly all of its own error
  for (int row = 0; row < rows; ++row) {
    for (int f = 0; f < frequencies; ++f) {
      const float angle = static_cast<float>(positions[size_t(row)]) * inv_freq[size_t(f)];
      const int64_t cosine = Ulps(angles.At(row, f), static_cast<float>(std::cos(double{angle})));
      const int64_t sine =
          Ulps(angles.At(row, frequencies + f), static_cast<float>(std::sin(double{angle})));
      EXPECT_LE(std::max(cosine, sine), 1) << angle;
      rounded_elsewhere += int(cosine + sine);
    }
  }
  EXPECT_LE(rounded_elsewhere, rows * frequencies / 1000);
  EXPECT_TRUE(angles.PaddingIsZero());
}

TEST(RowOps, RopeAnglesAreExactAtAnyPosition) {
  std::vector<float> inv_freq;
  for (int f = 0; f < 64; ++f) inv_freq.push_back(std::pow(500000.0f, -float(f) / 64));
  std::vector<int32_t> positions = {0, 1, 2, 3, 131071, 999999, 1000000, INT32_MAX};
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) positions.push_back(int32_t(random() % 1000001));
  ExpectAngles(positions, inv_freq);
  // Close to multiples of pi/2, where a careless reduction loses every bit: continued fractions of
  // pi/2 give the integers.
  ExpectAngles(std::vector<int32_t>{11, 22, 33, 44, 344, 355, 51819, 52174, 103993, 573204, 833719},
               std::vector<float>{1.0f, 0.5f, 2.0f});
  ExpectAngles(std::vector<int32_t>{1}, std::vector<float>{1.0f});
  ExpectAngles(std::vector<int32_t>{7, 100000}, std::vector<float>(133, 0.37f));
}

TEST(RowOps, GatherRowsCopies) {
  for (const bool full : {false, true}) {
    for (const int cols : {1, 64, 65, 5000}) {
      const Rows x = Random(3, 7, cols, full);
      const std::vector<int32_t> indices = {6, 0, 0, 3};
      Rows out(4, cols, full);
      emulator::EmulatedLauncher launch;
      LaunchGatherRows(launch, 4, indices.data(), x.view(), out.view());
      for (int i = 0; i < 4; ++i) EXPECT_EQ(out.Bits(i), x.Bits(indices[size_t(i)]));
      EXPECT_TRUE(out.PaddingIsZero());
    }
  }
}

TEST(RowOps, CopyRowGivesFloats) {
  for (const bool full : {false, true}) {
    for (const int cols : {1, 65, 2048, 5001}) {
      const Rows x = Random(3, 3, cols, full);
      const Memory out(size_t(cols) * 4);
      emulator::EmulatedLauncher launch;
      LaunchCopyRow(launch, x.view(), 2, reinterpret_cast<float*>(out.data()));
      const auto want = x.Bits(2);
      EXPECT_EQ(std::memcmp(out.data(), want.data(), size_t(cols) * 4), 0);
    }
  }
}

TEST(RowOps, CopyPagesCopiesWhatTheListSays) {
  for (const size_t page_bytes :
       {size_t{4096}, size_t{3 * 4096}, size_t{16384}, size_t{3 * 16384}, size_t{69632}}) {
    constexpr int kPages = 9;
    const Memory slab(kPages * page_bytes);
    std::mt19937 random{uint32_t(page_bytes)};
    for (size_t i = 0; i < kPages * page_bytes; ++i) slab.data()[i] = std::byte(random());
    const Memory before(kPages * page_bytes);
    std::memcpy(before.data(), slab.data(), kPages * page_bytes);
    // Only the first three count.
    const std::vector<PageCopy> copies = {{8, 0}, {2, 7}, {2, 5}, {3, 1}, {3, 4}};
    const int count = 3;
    DeviceFacts device;
    device.multiprocessors = 1;
    emulator::EmulatedLauncher launch;
    LaunchCopyPages(launch, device, slab.data(), page_bytes, {&count, copies.data()}, 5);
    for (uint32_t page = 0; page < kPages; ++page) {
      const uint32_t from = page == 0 ? 8 : page == 7 || page == 5 ? 2 : page;
      EXPECT_EQ(std::memcmp(slab.data() + page * page_bytes, before.data() + from * page_bytes,
                            page_bytes),
                0)
          << page;
    }
    const int none = 0;
    LaunchCopyPages(launch, device, slab.data(), page_bytes, {&none, nullptr}, 5);
    LaunchCopyPages(launch, device, slab.data(), page_bytes, {&none, nullptr}, 0);
  }
}

// A row alone, last of many, and with threads in another order.
TEST(RowOps, ARowHasTheSameBitsInAnyBatch) {
  constexpr int kRows = 40;
  for (const bool full : {false, true}) {
    for (const int cols : {72, 2600}) {
      const Rows x = Random(11, kRows, 2 * cols, full, 3);
      const Rows weight = Random(12, 1, 2 * cols, true);
      const auto* w = static_cast<const float*>(weight.view().data);
      Rows normed(kRows, 2 * cols, full), gated(kRows, cols, full);
      emulator::EmulatedLauncher launch;
      LaunchRmsNorm(launch, kRows, x.view(), w, 1e-6f, normed.view());
      LaunchSwiGlu(launch, kRows, x.view(), gated.view());
      for (const int row : {0, 17, kRows - 1}) {
        Rows alone(1, 2 * cols, full), one_normed(1, 2 * cols, full), one_gated(1, cols, full);
        alone.SetRow(0, x, row);
        emulator::EmulatedLauncher again(uint64_t(row) + 100);
        LaunchRmsNorm(again, 1, alone.view(), w, 1e-6f, one_normed.view());
        LaunchSwiGlu(again, 1, alone.view(), one_gated.view());
        EXPECT_EQ(one_normed.Bits(0), normed.Bits(row));
        EXPECT_EQ(one_gated.Bits(0), gated.Bits(row));
      }
    }
  }
}

TEST(RowOps, NoRowsLaunchNothing) {
  Rows x(1, 8, true);
  emulator::EmulatedLauncher launch;
  LaunchRmsNorm(launch, 0, x.view(), nullptr, 1e-6f, x.view());
  LaunchEmbed(launch, 0, nullptr, nullptr, {}, x.view());
  LaunchGatherRows(launch, 0, nullptr, x.view(), x.view());
}

TEST(RowOps, KernelsAreNamedOnce) {
  const auto kernels = RowKernels();
  for (size_t i = 0; i < kernels.size(); ++i) {
    EXPECT_LE(kernels[i].threads, 256);
    for (size_t j = 0; j < i; ++j) {
      EXPECT_NE(std::string(kernels[i].name), std::string(kernels[j].name));
      EXPECT_NE(kernels[i].function, kernels[j].function);
    }
  }
}

}  // namespace
}  // namespace lorad::kernels::cuda
